//! `create`: the container's first process exists and waits.

use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use super::OciError;
use super::args::{Invocation, ProcessIo};

/// Makes the container `id` from the bundle.
pub fn create(invocation: &Invocation, id: &str, bundle: &Path, io: &ProcessIo) -> Result<(), OciError> {
    std::fs::create_dir_all(&invocation.root)
        .map_err(|error| OciError::io(format!("--root {}", invocation.root.display()), error))?;
    let bundle = bundle.canonicalize().map_err(|error| OciError::io(format!("--bundle {}", bundle.display()), error))?;
    builder(invocation, id, io)?
        .as_init(&bundle)
        .with_systemd(invocation.systemd_cgroup)
        .with_detach(true)
        .build()
        .map_err(|error| OciError::runtime("create", error))?;
    Ok(())
}

/// What create and exec have in common.
pub fn builder(invocation: &Invocation, id: &str, io: &ProcessIo) -> Result<ContainerBuilder, OciError> {
    ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .validate_id()
        .and_then(|builder| builder.with_root_path(&invocation.root))
        .and_then(|builder| builder.with_pid_file(io.pid_file.as_ref()))
        .map(|builder| builder.with_console_socket(io.console_socket.as_ref()).with_preserved_fds(io.preserve_fds))
        .map_err(|error| OciError::runtime("arguments", error))
}
