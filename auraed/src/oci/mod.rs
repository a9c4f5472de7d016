//! `auraed oci`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `auraed oci` with the arguments after its name.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    eprintln!("auraed oci: not built in");
    ExitCode::from(2)
}
