//! New resource limits for a container: all of them or none.
//!
//! The OCI runtime writes one file after the other and stops at the first that the kernel refuses, so what was there
//! before is read first and put back then.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::errors::PodError;
use super::oci::OciRuntime;
use crate::cgroup::container::ContainerCgroup;

/// Everything an OCI runtime writes for `linux.resources`, by v1 controller. Memory with swap must stay above memory alone:
/// putting back goes over the list twice.
const V1_FILES: [(&str, &[&str]); 4] = [
    ("cpu", &["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_period_us", "cpu.rt_runtime_us", "cpu.idle"]),
    ("cpuset", &["cpuset.cpus", "cpuset.mems"]),
    ("memory", &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness"]),
    ("pids", &["pids.max"]),
];
const V2_FILES: [&str; 12] = [
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpu.idle",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "pids.max",
];

/// Applies OCI `linux.resources`; only the fields that are there change.
pub async fn apply(oci: &OciRuntime, id: &str, cgroup: Option<&ContainerCgroup>, resources: &[u8]) -> Result<(), PodError> {
    let invalid = |problem: String| PodError::Invalid { field: "oci_resources", problem };
    let parsed: Value = serde_json::from_slice(resources).map_err(|error| invalid(format!("is not JSON: {error}")))?;
    if !parsed.is_object() {
        return Err(invalid("must be an object".to_owned()));
    }
    let files = oci.files(&format!("update-{id}"));
    fs::write(&files.input, resources).map_err(PodError::io("write the resources"))?;
    let before = cgroup.map(Snapshot::take).unwrap_or_default();
    let result = oci.update(id, &files).await;
    if result.is_err() {
        before.restore();
    }
    Ok(result?)
}

/// The content of every limit's file.
#[derive(Default)]
struct Snapshot(Vec<(PathBuf, String)>);

impl Snapshot {
    fn take(cgroup: &ContainerCgroup) -> Self {
        let unified = cgroup.is_unified();
        let v1 = V1_FILES.iter().filter(|_| !unified).flat_map(|(controller, files)| files.iter().map(move |file| (*controller, *file)));
        let v2 = V2_FILES.iter().filter(|_| unified).map(|file| ("", *file));
        let paths = v1.chain(v2).filter_map(|(controller, file)| Some(cgroup.controller(controller)?.join(file)));
        // A file that cannot be read is of a controller that is not there.
        Self(paths.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect())
    }

    fn restore(&self) {
        for _ in 0..2 {
            for (path, value) in &self.0 {
                if fs::read_to_string(path).is_ok_and(|now| now != *value) {
                    // The second time over it shows what could not be put back.
                    let _ = fs::write(path, value.trim());
                }
            }
        }
        for (path, value) in &self.0 {
            if fs::read_to_string(path).is_ok_and(|now| now != *value) {
                tracing::error!(path = %path.display(), "a limit could not be put back");
            }
        }
    }
}
