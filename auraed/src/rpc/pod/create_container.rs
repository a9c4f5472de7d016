//! CreateContainer.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::{CreateSpec, Request};
use crate::pod::errors::PodError;
use crate::rpc::convert::{absolute, container_id};
use std::path::PathBuf;

pub async fn serve(pod: &Pod, request: api::CreateContainerRequest) -> Result<api::CreateContainerResponse, PodError> {
    let id = container_id(request.container_id)?;
    let io = request.io.unwrap_or_default();
    let spec = CreateSpec {
        bundle_path: absolute("bundle_path", request.bundle_path)?,
        oci_spec: request.oci_spec.to_vec(),
        log_path: if io.log_path.is_empty() { PathBuf::new() } else { absolute("io.log_path", io.log_path)? },
        terminal: io.terminal,
        stdin: io.stdin,
        stdin_once: io.stdin_once,
    };
    let pid = pod.ask(&id, |reply| Request::Create(Box::new(spec), reply)).await?;
    Ok(api::CreateContainerResponse { pid })
}
