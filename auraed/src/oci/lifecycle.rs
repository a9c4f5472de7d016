//! Operations on a container that exists.

use std::path::Path;

use libcgroups::common::{CgroupConfig, CgroupManager};
use libcontainer::container::{Container, State};
use libcontainer::signal::Signal;
use oci_spec::runtime::LinuxResources;

use super::OciError;
use super::args::Invocation;
use super::unit_limits::{Unit, options};

fn load(invocation: &Invocation, id: &str) -> Result<Container, OciError> {
    let dir = invocation.root.join(id);
    if !dir.is_dir() {
        return Err(OciError::NotFound(id.to_owned()));
    }
    Container::load(dir).map_err(|error| OciError::runtime("loading the container's state", error))
}

/// Lets the first process run its program.
pub fn start(invocation: &Invocation, id: &str) -> Result<(), OciError> {
    load(invocation, id)?.start().map_err(|error| OciError::runtime("start", error))
}

/// Prints the container's OCI state.
pub fn state(invocation: &Invocation, id: &str) -> Result<(), OciError> {
    let container = load(invocation, id)?;
    let State { oci_version, id, status, pid, bundle, annotations, .. } = &container.state;
    let status = status.to_string().to_lowercase();
    let pid = if status == "stopped" { 0 } else { pid.unwrap_or(0) };
    let state = serde_json::json!({
        "ociVersion": oci_version, "id": id, "status": status, "pid": pid, "bundle": bundle, "annotations": annotations,
    });
    println!("{state}");
    Ok(())
}

/// Signals the first process, or every process of the container.
pub fn kill(invocation: &Invocation, id: &str, signal: &str, all: bool) -> Result<(), OciError> {
    let signal = Signal::try_from(signal).map_err(|error| OciError::Usage(format!("signal {signal:?}: {error}")))?;
    load(invocation, id)?.kill(signal, all).map_err(|error| OciError::runtime("kill", error))
}

/// Removes what create made. Forced: kills what runs, and a container that does not exist is success.
pub fn delete(invocation: &Invocation, id: &str, force: bool) -> Result<(), OciError> {
    match load(invocation, id) {
        Ok(mut container) => container.delete(force).map_err(|error| OciError::runtime("delete", error)),
        Err(OciError::NotFound(_)) if force => Ok(()),
        Err(error) => Err(error),
    }
}

/// Applies OCI `linux.resources` to the container's cgroup.
pub fn update(invocation: &Invocation, id: &str, resources: &Path) -> Result<(), OciError> {
    let container = load(invocation, id)?;
    let text = std::fs::read_to_string(resources).map_err(|error| OciError::io(format!("--resources {}", resources.display()), error))?;
    let resources = serde_json::from_str(&text)
        .map_err(|error| OciError::Input { path: format!("--resources {}", resources.display()), reason: error.to_string() })?;
    let mut resources: LinuxResources = resources;
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if unified && resources.devices().as_ref().is_some_and(|rules| !rules.is_empty()) {
        return Err(OciError::Input { path: "devices".into(), reason: "cannot be changed once a container exists on cgroup v2".into() });
    }
    let config = container.spec().map_err(|error| OciError::runtime("loading the container's config", error))?;
    let cgroup =
        CgroupConfig { cgroup_path: config.cgroup_path, systemd_cgroup: container.systemd(), container_name: container.id().to_owned() };
    let manager = libcgroups::common::create_cgroup_manager(cgroup).map_err(|error| OciError::runtime("update", error))?;
    if container.systemd() {
        let unit = Unit::of(&container)?;
        unit.ask_kernel(&resources)?;
        unit.complete(&mut resources);
    }
    manager.apply(&options(&resources)).map_err(|error| OciError::runtime("update", error))
}
