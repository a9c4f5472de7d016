//! SetClock.

use crate::api::guest::v0 as api;
use crate::init::errors::GuestError;
use crate::sys::guest;

pub fn serve(request: api::SetClockRequest) -> Result<api::SetClockResponse, GuestError> {
    guest::set_clock(request.clock_ns).map_err(GuestError::io("set the clock"))?;
    Ok(api::SetClockResponse {})
}
