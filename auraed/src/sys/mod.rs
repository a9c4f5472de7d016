//! Every libc call and every unsafe block of the crate.
#![allow(unsafe_code)]

pub mod bpf;
pub mod confine;
pub mod fd;
pub mod guest;
pub mod loop_control;
pub mod module;
pub mod mounts;
pub mod namespace;
pub mod process;
pub mod seal;
pub mod tap;
