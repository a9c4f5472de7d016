//! ExposeLayer.

use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub async fn serve(vm: &Vm, request: api::ExposeLayerRequest) -> Result<api::ExposeLayerResponse, VmError> {
    vm.expose_layer(request.name, request.host_path.into()).await?;
    Ok(api::ExposeLayerResponse {})
}
