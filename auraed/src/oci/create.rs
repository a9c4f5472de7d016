//! `create`: the container's first process exists and waits.

use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{LinuxResources, Spec};

use super::OciError;
use super::args::{Invocation, ProcessIo};
use super::devices;
use super::unit_limits::Unit;

/// Makes the container `id` from the bundle.
pub fn create(invocation: &Invocation, id: &str, bundle: &Path, io: &ProcessIo) -> Result<(), OciError> {
    std::fs::create_dir_all(&invocation.root).map_err(|error| OciError::io(format!("--root {}", invocation.root.display()), error))?;
    let bundle = bundle.canonicalize().map_err(|error| OciError::io(format!("--bundle {}", bundle.display()), error))?;
    let config = bundle.join("config.json");
    let spec = Spec::load(&config).map_err(|error| OciError::Input { path: config.display().to_string(), reason: error.to_string() })?;
    let systemd = cgroup_driver(invocation, &spec)?;
    let mut container = builder(invocation, id, io)?
        .as_init(&bundle)
        .with_systemd(systemd)
        .with_detach(true)
        .build()
        .map_err(|error| OciError::runtime("create", error))?;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    confine(&container, resources).inspect_err(|_| {
        // Unconfined it must not stay.
        let undone = container.delete(true);
        tracing::debug!(?undone, "container deleted because it could not be confined");
    })
}

/// What the builder leaves out: the rules for devices, and limits of a unit as the kernel takes them.
fn confine(container: &Container, resources: Option<&LinuxResources>) -> Result<(), OciError> {
    let pid = container.pid().ok_or_else(|| OciError::Input { path: "container".into(), reason: "has no process".into() })?;
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    devices::confine(pid.as_raw(), rules).map_err(|error| OciError::io("confining the container's devices", error))?;
    match resources {
        Some(resources) if container.systemd() => Unit::of(container)?.ask_kernel(resources),
        _ => Ok(()),
    }
}

/// Whether systemd makes the cgroup: the caller says so, or the path has its form `slice:prefix:name`.
fn cgroup_driver(invocation: &Invocation, spec: &Spec) -> Result<bool, OciError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.map(Path::to_string_lossy).unwrap_or_default();
    let systemd_form = path.split(':').count() == 3 && !path.starts_with('/');
    let refused = |reason: &str| Err(OciError::Input { path: "linux.cgroupsPath".into(), reason: format!("{path:?} {reason}") });
    if invocation.systemd_cgroup && !systemd_form && !path.is_empty() {
        return refused("must have the form SLICE:PREFIX:NAME for the systemd cgroup driver");
    }
    if systemd_form && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return refused("has systemd's form, which needs cgroup v2: use the cgroupfs driver on this host");
    }
    Ok(systemd_form || invocation.systemd_cgroup)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn driver(path: &str, systemd_cgroup: bool) -> Result<bool, OciError> {
        let mut invocation = super::super::args::parse(vec!["create".into(), "x".into()]).unwrap();
        invocation.systemd_cgroup = systemd_cgroup;
        let spec = serde_json::json!({ "ociVersion": "1.0.2", "linux": { "cgroupsPath": path } });
        cgroup_driver(&invocation, &serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_form_of_the_path_names_the_driver() {
        assert!(!driver("/kubepods/pod1/c", false).unwrap());
        assert!(!driver("/a:b:c", false).unwrap());
        assert!(driver("/kubepods/pod1/c", true).is_err());
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        assert_eq!(driver("kubepods-pod1.slice:aurae:c", false).is_ok_and(|systemd| systemd), unified);
    }
}
