//! UnshareVolumes.

use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub async fn serve(vm: &Vm, request: api::UnshareVolumesRequest) -> Result<api::UnshareVolumesResponse, VmError> {
    vm.unshare(request.names).await?;
    Ok(api::UnshareVolumesResponse {})
}
