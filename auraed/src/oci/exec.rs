//! `exec`: a further process in a running container.

use std::path::Path;
use std::process::ExitCode;

use nix::sys::wait::{WaitStatus, waitpid};

use super::OciError;
use super::args::{Invocation, ProcessIo};
use super::create::builder;

/// Starts the process described by the file `process`. Detached: returns at once; else ends as the process ends.
pub fn exec(invocation: &Invocation, id: &str, process: &Path, detach: bool, io: &ProcessIo) -> Result<ExitCode, OciError> {
    let pid = builder(invocation, id, io)?
        .as_tenant()
        .with_process(Some(process))
        .with_detach(detach)
        .build()
        .map_err(|error| OciError::runtime("exec", error))?;
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    let pid = nix::unistd::Pid::from_raw(pid.as_raw());
    match waitpid(pid, None).map_err(|error| OciError::io(format!("waiting for process {pid}"), error.into()))? {
        WaitStatus::Exited(_, code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
        WaitStatus::Signaled(_, signal, _) => Ok(ExitCode::from(128 + signal as u8)),
        _ => Ok(ExitCode::FAILURE),
    }
}
