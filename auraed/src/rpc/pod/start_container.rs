//! StartContainer.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::errors::PodError;
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, request: api::StartContainerRequest) -> Result<api::StartContainerResponse, PodError> {
    let id = container_id(request.container_id)?;
    let started_at_ns = pod.ask(&id, Request::Start).await?;
    Ok(api::StartContainerResponse { started_at_ns })
}
