//! The guest of a microVM.

pub mod volumes;
