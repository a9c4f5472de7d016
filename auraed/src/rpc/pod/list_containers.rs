//! ListContainers.

use crate::api::pod::v0 as api;
use crate::pod::errors::PodError;
use crate::pod::journal::Journal;
use crate::rpc::convert::container;

pub async fn serve(journal: &Journal, _request: api::ListContainersRequest) -> Result<api::ListContainersResponse, PodError> {
    let (views, last_event) = journal.snapshot();
    Ok(api::ListContainersResponse { containers: views.into_iter().map(container).collect(), last_event })
}
