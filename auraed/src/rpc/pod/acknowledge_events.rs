//! AcknowledgeEvents.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::errors::PodError;

pub async fn serve(pod: &Pod, request: api::AcknowledgeEventsRequest) -> Result<api::AcknowledgeEventsResponse, PodError> {
    pod.journal().acknowledge(request.through);
    Ok(api::AcknowledgeEventsResponse {})
}
