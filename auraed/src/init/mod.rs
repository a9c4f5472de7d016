//! What a guest is asked to be.

pub mod modprobe;
mod modules;
