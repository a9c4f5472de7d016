//! `exec`: a further process in a running container.

use std::io;
use std::path::{Component, Path};
use std::process::ExitCode;

use nix::sys::wait::{WaitStatus, waitpid};

use super::OciError;
use super::args::{Invocation, ProcessIo};
use super::create::builder;
use crate::cgroup::{Hierarchies, procs};

/// Starts the process described by the file `process`. Detached: returns at once; else ends as the process ends.
pub fn exec(invocation: &Invocation, id: &str, process: &Path, detach: bool, io: &ProcessIo) -> Result<ExitCode, OciError> {
    let sub_cgroups = io.sub_cgroups.clone();
    let pid = builder(invocation, id, io)?
        .as_tenant()
        .with_process(Some(process))
        .with_detach(detach)
        .with_before_start(Box::new(move |pid| sub_cgroups.iter().try_for_each(|name| join_sub_cgroup(pid.as_raw(), name))))
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

/// Moves a process from its cgroup into one below it, named `[CONTROLLER:]PATH`.
fn join_sub_cgroup(pid: i32, name: &str) -> io::Result<()> {
    let (controller, path) = name.split_once(':').unwrap_or(("", name));
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("--cgroup {name}: leads out of the container's cgroup")));
    }
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    let directories = hierarchies.directories_of(pid.unsigned_abs()).map_err(io::Error::other)?;
    let wanted =
        directories.iter().find(|(hierarchy, _)| if controller.is_empty() { hierarchy.is_v2() } else { hierarchy.has(controller) });
    let Some((_, directory)) = wanted else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("--cgroup {name}: no such hierarchy")));
    };
    procs::join(&directory.join(path.trim_start_matches('/')), pid).map_err(io::Error::other)
}
