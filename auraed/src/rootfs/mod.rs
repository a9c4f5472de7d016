//! A container's root filesystem.
