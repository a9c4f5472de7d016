//! `auraed host`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `auraed host` with the arguments after its name.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    eprintln!("auraed host: not built in");
    ExitCode::from(2)
}
