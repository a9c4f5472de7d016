//! Every libc call and every unsafe block of the crate.
#![allow(unsafe_code)]

pub mod bpf;
pub mod fd;
pub mod loop_control;
pub mod mounts;
pub mod namespace;
pub mod process;
pub mod seal;
pub mod tap;
