//! SignalContainer.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::errors::PodError;
use crate::rpc::convert::container_id;

pub async fn serve(pod: &Pod, request: api::SignalContainerRequest) -> Result<api::SignalContainerResponse, PodError> {
    let id = container_id(request.container_id)?;
    pod.ask(&id, |reply| Request::Signal { signal: request.signal, all: request.all, reply }).await?;
    Ok(api::SignalContainerResponse {})
}
