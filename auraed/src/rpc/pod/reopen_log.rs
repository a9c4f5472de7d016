//! ReopenLog.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::errors::PodError;
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, request: api::ReopenLogRequest) -> Result<api::ReopenLogResponse, PodError> {
    let id = container_id(request.container_id)?;
    pod.ask(&id, Request::ReopenLog).await?;
    Ok(api::ReopenLogResponse {})
}
