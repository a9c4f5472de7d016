//! CloseLog.

use super::super::convert::container_id;
use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub fn serve(vm: &Vm, request: api::CloseLogRequest) -> Result<api::CloseLogResponse, VmError> {
    vm.logs.close(&container_id(request.container_id)?);
    Ok(api::CloseLogResponse {})
}
