//! AcknowledgeEvents.

use crate::api::pod::v0 as api;
use crate::pod::errors::PodError;
use crate::pod::journal::Journal;

pub async fn serve(journal: &Journal, request: api::AcknowledgeEventsRequest) -> Result<api::AcknowledgeEventsResponse, PodError> {
    journal.acknowledge(request.through);
    Ok(api::AcknowledgeEventsResponse {})
}
