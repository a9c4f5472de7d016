//! CreateSandbox.

use std::path::PathBuf;

use crate::api::supervisor::v0 as api;
use crate::cgroup::leaf::{Driver, LeafSpec};
use crate::pod::errors::PodError;
use crate::pod::sandbox::SandboxSpec;
use crate::pod::supervisor::Supervisor;
use crate::rpc::convert::id_mappings;

pub async fn serve(supervisor: &Supervisor, request: api::CreateSandboxRequest) -> Result<api::CreateSandboxResponse, PodError> {
    let made = supervisor.create_sandbox(spec(request)?).await?;
    Ok(api::CreateSandboxResponse {
        network_path: text(made.pins.network),
        ipc_path: text(made.pins.ipc),
        uts_path: text(made.pins.uts),
        pid_path: text(made.pins.pid),
        user_path: text(made.pins.user),
        reaper_pid: made.pid_one.unwrap_or(0),
    })
}

fn text(path: Option<PathBuf>) -> String {
    // Came as text in the request.
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

fn spec(request: api::CreateSandboxRequest) -> Result<SandboxSpec, PodError> {
    let namespaces = request.namespaces.unwrap_or_default();
    let cgroup = request.cgroup.ok_or(PodError::Invalid { field: "cgroup", problem: "must be given".to_owned() })?;
    let driver = match cgroup.driver() {
        api::CgroupDriver::Cgroupfs => Driver::Cgroupfs,
        api::CgroupDriver::Systemd => Driver::Systemd,
        api::CgroupDriver::Unspecified => {
            return Err(PodError::Invalid { field: "cgroup.driver", problem: "must be cgroupfs or systemd".to_owned() });
        }
    };
    let mut sysctls: Vec<(String, String)> = request.sysctls.into_iter().collect();
    sysctls.sort();
    Ok(SandboxSpec {
        pod_id: request.pod_id,
        network: namespaces.network,
        ipc: namespaces.ipc,
        uts: namespaces.uts,
        pid: namespaces.pid,
        hostname: request.hostname,
        sysctls,
        namespaces_path: request.namespaces_path.into(),
        shm_size_bytes: request.shm_size_bytes,
        shm_path: request.shm_path.into(),
        cgroup: LeafSpec { driver, parent: cgroup.parent, owned: cgroup.owned, leaf: cgroup.leaf },
        uid_mappings: id_mappings(request.uid_mappings),
        gid_mappings: id_mappings(request.gid_mappings),
    })
}
