//! The guest contract: what only the auraed of a microVM is asked.

mod configure;
mod logs;
mod mount_layers;
mod set_clock;

use tonic::{Request, Response, Status, Streaming};

use super::pod::Outgoing;
use super::status::guest_status;
use crate::api::guest::v0 as api;
use crate::api::guest::v0::guest_service_server::GuestService;
use crate::init::guest::Guest;
use crate::io::log_relay::LogRelay;

pub struct GuestRpc {
    guest: Guest,
    logs: LogRelay,
}

impl GuestRpc {
    pub fn new(guest: Guest, logs: LogRelay) -> Self {
        Self { guest, logs }
    }
}

#[tonic::async_trait]
impl GuestService for GuestRpc {
    async fn configure(&self, request: Request<api::ConfigureRequest>) -> Result<Response<api::ConfigureResponse>, Status> {
        configure::serve(&self.guest, request.into_inner()).await.map(Response::new).map_err(guest_status)
    }

    async fn mount_layers(&self, request: Request<api::MountLayersRequest>) -> Result<Response<api::MountLayersResponse>, Status> {
        mount_layers::serve(&self.guest, request.into_inner()).await.map(Response::new).map_err(guest_status)
    }

    async fn set_clock(&self, request: Request<api::SetClockRequest>) -> Result<Response<api::SetClockResponse>, Status> {
        set_clock::serve(request.into_inner()).map(Response::new).map_err(guest_status)
    }

    type LogsStream = Outgoing<api::LogRecords>;

    async fn logs(&self, request: Request<Streaming<api::LogAck>>) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(logs::serve(&self.logs, request.into_inner())))
    }
}
