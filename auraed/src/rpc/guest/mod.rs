//! The guest contract: what only the auraed of a microVM is asked.

mod configure;
mod limit_pod;
mod logs;
mod mount_layers;
mod set_clock;

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Response, Status, Streaming};

use super::pod::{Outgoing, PodRpc, pod_server};
use super::status::guest_status;
use super::{Answer, MAX_MESSAGE_BYTES, Serve, method};
use crate::api::guest::v0 as api;
use crate::api::guest::v0::guest_service_server::{GuestService, GuestServiceServer, SERVICE_NAME as GUEST};
use crate::api::pod::v0::pod_service_server::PodServiceServer;
use crate::init::guest::Guest;
use crate::io::log_relay::LogRelay;
use crate::pod::Pod;

/// What `auraed init` serves. Cheap to clone.
#[derive(Clone)]
pub struct GuestServices {
    pod: PodServiceServer<PodRpc>,
    guest: GuestServiceServer<GuestRpc>,
}

impl GuestServices {
    pub fn new(pod: Pod, guest: Guest, logs: LogRelay) -> Self {
        let guest = GuestServiceServer::new(GuestRpc { guest, logs }).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Self { pod: pod_server(pod), guest }
    }
}

impl Serve for GuestServices {
    fn serve(&self, request: http::Request<Body>) -> Answer {
        match method(request.uri().path()) {
            (GUEST, _) => self.guest.clone().call(request),
            // Answers Unimplemented to what it does not know.
            _ => self.pod.clone().call(request),
        }
    }
}

pub struct GuestRpc {
    guest: Guest,
    logs: LogRelay,
}

#[tonic::async_trait]
impl GuestService for GuestRpc {
    async fn configure(&self, request: Request<api::ConfigureRequest>) -> Result<Response<api::ConfigureResponse>, Status> {
        configure::serve(&self.guest, request.into_inner()).await.map(Response::new).map_err(guest_status)
    }

    async fn mount_layers(&self, request: Request<api::MountLayersRequest>) -> Result<Response<api::MountLayersResponse>, Status> {
        mount_layers::serve(&self.guest, request.into_inner()).await.map(Response::new).map_err(guest_status)
    }

    async fn limit_pod(&self, request: Request<api::LimitPodRequest>) -> Result<Response<api::LimitPodResponse>, Status> {
        limit_pod::serve(&self.guest, request.into_inner()).await.map(Response::new).map_err(guest_status)
    }

    async fn set_clock(&self, request: Request<api::SetClockRequest>) -> Result<Response<api::SetClockResponse>, Status> {
        set_clock::serve(request.into_inner()).map(Response::new).map_err(guest_status)
    }

    type LogsStream = Outgoing<api::LogRecords>;

    async fn logs(&self, request: Request<Streaming<api::LogAck>>) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(logs::serve(&self.logs, request.into_inner())))
    }
}
