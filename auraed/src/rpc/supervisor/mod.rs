//! The supervisor contract: the host's part of a pod.

mod create_sandbox;
mod shutdown;

use tonic::{Request, Response, Status};

use super::status::status;
use crate::api::supervisor::v0 as api;
use crate::api::supervisor::v0::supervisor_service_server::SupervisorService;
use crate::pod::supervisor::Supervisor;

pub struct SupervisorRpc {
    supervisor: Supervisor,
}

impl SupervisorRpc {
    pub fn new(supervisor: Supervisor) -> Self {
        Self { supervisor }
    }
}

#[tonic::async_trait]
impl SupervisorService for SupervisorRpc {
    async fn create_sandbox(&self, request: Request<api::CreateSandboxRequest>) -> Result<Response<api::CreateSandboxResponse>, Status> {
        create_sandbox::serve(&self.supervisor, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn shutdown(&self, request: Request<api::ShutdownRequest>) -> Result<Response<api::ShutdownResponse>, Status> {
        shutdown::serve(&self.supervisor, request.into_inner()).await.map(Response::new).map_err(status)
    }
}
