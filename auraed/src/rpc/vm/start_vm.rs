//! StartVm.

use crate::api::supervisor::v0 as api;
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;
use crate::vm::spec::{Scratch, VmFile, VmSpec};

pub async fn serve(vm: &Vm, request: api::StartVmRequest) -> Result<api::StartVmResponse, VmError> {
    let pid = vm.start_vm(spec(request)?).await?;
    Ok(api::StartVmResponse { pid })
}

fn spec(request: api::StartVmRequest) -> Result<VmSpec, VmError> {
    let scratch = match (request.scratch_template, request.scratch_path) {
        (template, path) if template.is_empty() && path.is_empty() => None,
        (template, path) if !template.is_empty() && !path.is_empty() => Some(Scratch { template: template.into(), path: path.into() }),
        _ => return Err(VmError::invalid("scratch_path", "must be given together with scratch_template")),
    };
    let file = |file: api::VmFile| VmFile { host_path: file.host_path.into(), path: file.path.into() };
    Ok(VmSpec {
        program: request.program.into(),
        args: request.args,
        files: request.files.into_iter().map(file).collect(),
        run_path: request.run_path.into(),
        uid: request.uid,
        gid: request.gid,
        cgroup: request.cgroup,
        kvm: request.kvm,
        scratch,
        saved_state: Some(request.saved_state_path).filter(|path| !path.is_empty()).map(Into::into),
    })
}
