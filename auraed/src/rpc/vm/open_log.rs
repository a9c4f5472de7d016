//! OpenLog.

use super::super::convert::{absolute, container_id};
use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub fn serve(vm: &Vm, request: api::OpenLogRequest) -> Result<api::OpenLogResponse, VmError> {
    let id = container_id(request.container_id)?;
    vm.logs.open(&id, &absolute("path", request.path)?)?;
    Ok(api::OpenLogResponse {})
}
