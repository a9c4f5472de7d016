//! New resource limits for a container.

use std::fs;

use super::errors::PodError;
use super::oci::OciRuntime;
use crate::cgroup::container::ContainerCgroup;

/// Applies OCI `linux.resources`.
pub async fn apply(oci: &OciRuntime, id: &str, _cgroup: Option<&ContainerCgroup>, resources: &[u8]) -> Result<(), PodError> {
    let files = oci.files(&format!("update-{id}"));
    fs::write(&files.input, resources).map_err(PodError::io("write the resources"))?;
    Ok(oci.update(id, &files).await?)
}
