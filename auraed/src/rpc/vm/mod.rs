//! What `auraed vm` serves: the VM and its sandbox, its own journal in place of the guest's, and everything else by the guest.

mod attach_network;
mod close_log;
mod expose_layer;
mod journal;
mod open_log;
mod share_volumes;
mod start_vm;
mod unshare_volumes;
mod vm_status;

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Response, Status};

use super::status::vm_status as status;
use super::supervisor::SupervisorRpc;
use super::{Answer, Serve, method};
use crate::api::pod::v0::pod_service_server::SERVICE_NAME as POD;
use crate::api::supervisor::v0 as api;
use crate::api::supervisor::v0::supervisor_service_server::{SERVICE_NAME as SUPERVISOR, SupervisorServiceServer};
use crate::api::supervisor::v0::vm_service_server::{SERVICE_NAME as VM, VmService, VmServiceServer};
use crate::pod::supervisor::Supervisor;
use crate::vm::machine::Vm;

/// Cheap to clone.
#[derive(Clone)]
pub struct VmServices {
    vm: Vm,
    service: VmServiceServer<VmRpc>,
    supervisor: SupervisorServiceServer<SupervisorRpc>,
}

impl VmServices {
    pub fn new(vm: Vm, supervisor: Supervisor) -> Self {
        let service = VmServiceServer::new(VmRpc { vm: vm.clone() });
        Self { vm, service, supervisor: SupervisorServiceServer::new(SupervisorRpc::new(supervisor)) }
    }
}

impl Serve for VmServices {
    fn serve(&self, request: http::Request<Body>) -> Answer {
        match method(request.uri().path()) {
            (SUPERVISOR, _) => self.supervisor.clone().call(request),
            (VM, _) => self.service.clone().call(request),
            (POD, "Events") => journal::events(self.vm.journal().clone(), request),
            (POD, "AcknowledgeEvents") => journal::acknowledge_events(self.vm.journal().clone(), request),
            (POD, "ListContainers") => journal::list_containers(self.vm.journal().clone(), request),
            _ => {
                let relay = self.vm.relay.clone();
                Box::pin(async move { Ok(relay.forward(request).await.unwrap_or_else(|error| status(error).into_http())) })
            }
        }
    }
}

struct VmRpc {
    vm: Vm,
}

#[tonic::async_trait]
impl VmService for VmRpc {
    async fn start_vm(&self, request: Request<api::StartVmRequest>) -> Result<Response<api::StartVmResponse>, Status> {
        start_vm::serve(&self.vm, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn vm_status(&self, request: Request<api::VmStatusRequest>) -> Result<Response<api::VmStatusResponse>, Status> {
        Ok(Response::new(vm_status::serve(&self.vm, request.into_inner())))
    }

    async fn attach_network(&self, request: Request<api::AttachNetworkRequest>) -> Result<Response<api::AttachNetworkResponse>, Status> {
        attach_network::serve(&self.vm, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn expose_layer(&self, request: Request<api::ExposeLayerRequest>) -> Result<Response<api::ExposeLayerResponse>, Status> {
        expose_layer::serve(&self.vm, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn open_log(&self, request: Request<api::OpenLogRequest>) -> Result<Response<api::OpenLogResponse>, Status> {
        open_log::serve(&self.vm, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn close_log(&self, request: Request<api::CloseLogRequest>) -> Result<Response<api::CloseLogResponse>, Status> {
        close_log::serve(&self.vm, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn share_volumes(&self, request: Request<api::ShareVolumesRequest>) -> Result<Response<api::ShareVolumesResponse>, Status> {
        share_volumes::serve(&self.vm, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn unshare_volumes(&self, request: Request<api::UnshareVolumesRequest>) -> Result<Response<api::UnshareVolumesResponse>, Status> {
        unshare_volumes::serve(&self.vm, request.into_inner()).await.map(Response::new).map_err(status)
    }
}
