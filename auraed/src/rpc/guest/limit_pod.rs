//! LimitPod.

use crate::api::guest::v0 as api;
use crate::init::errors::GuestError;
use crate::init::guest::Guest;
use crate::init::limits::{CpuLimit, Limits};

pub async fn serve(guest: &Guest, request: api::LimitPodRequest) -> Result<api::LimitPodResponse, GuestError> {
    if request.cpu.as_ref().is_some_and(|cpu| cpu.period_us == 0) {
        return Err(GuestError::invalid("cpu.period_us", "must be above 0"));
    }
    let cpu = request.cpu.map(|cpu| CpuLimit { quota_us: cpu.quota_us, period_us: cpu.period_us });
    guest.limit_pod(Limits { memory_bytes: request.memory_bytes, cpu }).await?;
    Ok(api::LimitPodResponse {})
}
