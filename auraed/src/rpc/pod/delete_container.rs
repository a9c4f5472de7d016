//! DeleteContainer.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::errors::PodError;
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, request: api::DeleteContainerRequest) -> Result<api::DeleteContainerResponse, PodError> {
    let id = container_id(request.container_id)?;
    pod.delete(&id).await?;
    Ok(api::DeleteContainerResponse {})
}
