//! `clean-pod`: what a pod leaves behind whose auraed died before its time.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{HostError, cgroups, unmount};
use crate::cgroup::systemd;

/// Kills, unmounts, removes the cgroups, in that order. What fails does not keep the rest from being tried.
pub fn clean(dir: &Path, names: &[PathBuf]) -> Result<Value, HostError> {
    let roots = cgroups::hierarchies()?;
    let mut found = Vec::new();
    for name in names {
        found.extend(cgroups::locate(&roots, name)?);
    }
    // A process that is frozen dies only once it is thawed: those that can do so come first.
    found.sort_by_key(|cgroup| !cgroup.join("freezer.state").exists());
    let mut first_error = None;
    let mut keep = |result: Result<usize, HostError>| match result {
        Ok(count) => count,
        Err(error) => {
            first_error.get_or_insert(error);
            0
        }
    };
    let killed = found.iter().map(|cgroup| keep(cgroups::kill_all(cgroup))).max().unwrap_or(0);
    let unmounted = keep(unmount::below(dir));
    let removed: usize = found.iter().map(|cgroup| keep(cgroups::remove(cgroup).map(|()| 1))).sum();
    for name in names.iter().filter(|_| Path::new("/run/systemd/system").exists()) {
        keep(stop_slice(name).map(|()| 0));
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(json!({ "killed": killed, "unmounted": unmounted, "cgroupsRemoved": removed })),
    }
}

/// systemd makes the cgroup of a slice again for as long as that counts as active.
fn stop_slice(name: &Path) -> Result<(), HostError> {
    match name.file_name().and_then(|last| last.to_str()).filter(|last| last.ends_with(".slice")) {
        Some(slice) => systemd::stop_slice(slice).map_err(|error| HostError::State { path: name.to_owned(), reason: error.to_string() }),
        None => Ok(()),
    }
}
