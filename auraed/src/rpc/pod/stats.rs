//! Stats.

use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::errors::PodError;

pub async fn serve(_pod: &Pod, _request: api::StatsRequest) -> Result<api::StatsResponse, PodError> {
    Ok(api::StatsResponse::default())
}
