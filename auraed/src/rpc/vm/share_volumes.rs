//! ShareVolumes.

use crate::api::supervisor::v0 as api;
use crate::fs::client::{Access, Share};
use crate::vm::errors::VmError;
use crate::vm::machine::Vm;

pub async fn serve(vm: &Vm, request: api::ShareVolumesRequest) -> Result<api::ShareVolumesResponse, VmError> {
    vm.share(request.volumes.into_iter().map(share).collect()).await?;
    Ok(api::ShareVolumesResponse {})
}

fn share(volume: api::Volume) -> Share {
    let access = match (volume.read_only, volume.writable_below) {
        (false, _) => Access::ReadWrite,
        (true, true) => Access::ReadOnlyTop,
        (true, false) => Access::ReadOnly,
    };
    Share { name: volume.name, host_path: volume.host_path.into(), access, mapped: volume.mapped }
}
