//! ShareVolumes.

use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub async fn serve(_vm: &Vm, _request: api::ShareVolumesRequest) -> Result<api::ShareVolumesResponse, VmError> {
    Err(VmError::Unsupported { what: "ShareVolumes" })
}
