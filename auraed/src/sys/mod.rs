//! Every libc call and every unsafe block of the crate.
#![allow(unsafe_code)]

pub mod seal;
