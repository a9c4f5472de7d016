//! UnshareVolumes.

use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub async fn serve(_vm: &Vm, _request: api::UnshareVolumesRequest) -> Result<api::UnshareVolumesResponse, VmError> {
    Err(VmError::Unsupported { what: "UnshareVolumes" })
}
