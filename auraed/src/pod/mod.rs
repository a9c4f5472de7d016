//! `auraed pod`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `auraed pod` with the arguments after its name.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    eprintln!("auraed pod: not built in");
    ExitCode::from(2)
}
