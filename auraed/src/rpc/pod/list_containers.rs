//! ListContainers.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::errors::PodError;
use crate::rpc::convert::container;

pub async fn serve(pod: &Pod, _request: api::ListContainersRequest) -> Result<api::ListContainersResponse, PodError> {
    let (views, last_event) = pod.journal().snapshot();
    Ok(api::ListContainersResponse { containers: views.into_iter().map(container).collect(), last_event })
}
