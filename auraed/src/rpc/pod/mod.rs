//! The pod contract: containers.

pub(super) mod acknowledge_events;
mod attach;
mod create_container;
mod delete_container;
pub(super) mod events;
mod exec;
mod exec_sync;
mod hello;
pub(super) mod list_containers;
mod mount_image;
mod port_forward;
mod prepare_container;
mod reopen_log;
mod signal_container;
mod start_container;
mod stats;
mod streams;
mod update_container;

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Response, Status, Streaming};

use super::status::status;
use super::supervisor::SupervisorRpc;
use super::{Answer, MAX_MESSAGE_BYTES, Serve, method};
use crate::api::pod::v0 as api;
use crate::api::pod::v0::pod_service_server::{PodService, PodServiceServer};
use crate::api::supervisor::v0::supervisor_service_server::{SERVICE_NAME as SUPERVISOR, SupervisorServiceServer};
use crate::pod::Pod;
use crate::pod::supervisor::Supervisor;

/// What a streaming call answers with.
pub type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What `auraed pod` serves. Cheap to clone.
#[derive(Clone)]
pub struct PodServices {
    pod: PodServiceServer<PodRpc>,
    supervisor: SupervisorServiceServer<SupervisorRpc>,
}

impl PodServices {
    pub fn new(pod: Pod, supervisor: Supervisor) -> Self {
        Self { pod: pod_server(pod), supervisor: SupervisorServiceServer::new(SupervisorRpc::new(supervisor)) }
    }
}

/// The pod contract, with room for ExecSync's answers.
pub fn pod_server(pod: Pod) -> PodServiceServer<PodRpc> {
    PodServiceServer::new(PodRpc { pod }).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl Serve for PodServices {
    fn serve(&self, request: http::Request<Body>) -> Answer {
        match method(request.uri().path()) {
            (SUPERVISOR, _) => self.supervisor.clone().call(request),
            // Answers Unimplemented to what it does not know.
            _ => self.pod.clone().call(request),
        }
    }
}

pub struct PodRpc {
    pod: Pod,
}

#[tonic::async_trait]
impl PodService for PodRpc {
    async fn hello(&self, request: Request<api::HelloRequest>) -> Result<Response<api::HelloResponse>, Status> {
        hello::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn prepare_container(
        &self,
        request: Request<api::PrepareContainerRequest>,
    ) -> Result<Response<api::PrepareContainerResponse>, Status> {
        prepare_container::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn mount_image(&self, request: Request<api::MountImageRequest>) -> Result<Response<api::MountImageResponse>, Status> {
        mount_image::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn create_container(
        &self,
        request: Request<api::CreateContainerRequest>,
    ) -> Result<Response<api::CreateContainerResponse>, Status> {
        create_container::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn start_container(&self, request: Request<api::StartContainerRequest>) -> Result<Response<api::StartContainerResponse>, Status> {
        start_container::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn signal_container(
        &self,
        request: Request<api::SignalContainerRequest>,
    ) -> Result<Response<api::SignalContainerResponse>, Status> {
        signal_container::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn delete_container(
        &self,
        request: Request<api::DeleteContainerRequest>,
    ) -> Result<Response<api::DeleteContainerResponse>, Status> {
        delete_container::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn update_container(
        &self,
        request: Request<api::UpdateContainerRequest>,
    ) -> Result<Response<api::UpdateContainerResponse>, Status> {
        update_container::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn reopen_log(&self, request: Request<api::ReopenLogRequest>) -> Result<Response<api::ReopenLogResponse>, Status> {
        reopen_log::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list_containers(&self, request: Request<api::ListContainersRequest>) -> Result<Response<api::ListContainersResponse>, Status> {
        list_containers::serve(self.pod.journal(), request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn stats(&self, request: Request<api::StatsRequest>) -> Result<Response<api::StatsResponse>, Status> {
        stats::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn exec_sync(&self, request: Request<api::ExecSyncRequest>) -> Result<Response<api::ExecSyncResponse>, Status> {
        exec_sync::serve(&self.pod, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn acknowledge_events(
        &self,
        request: Request<api::AcknowledgeEventsRequest>,
    ) -> Result<Response<api::AcknowledgeEventsResponse>, Status> {
        acknowledge_events::serve(self.pod.journal(), request.into_inner()).await.map(Response::new).map_err(status)
    }

    type EventsStream = Outgoing<api::Event>;

    async fn events(&self, request: Request<api::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        Ok(Response::new(events::serve(self.pod.journal(), request.into_inner())))
    }

    type ExecStream = Outgoing<api::StreamOutput>;

    async fn exec(&self, request: Request<Streaming<api::StreamInput>>) -> Result<Response<Self::ExecStream>, Status> {
        exec::serve(&self.pod, request.into_inner()).await.map(Response::new)
    }

    type AttachStream = Outgoing<api::StreamOutput>;

    async fn attach(&self, request: Request<Streaming<api::StreamInput>>) -> Result<Response<Self::AttachStream>, Status> {
        attach::serve(&self.pod, request.into_inner()).await.map(Response::new)
    }

    type PortForwardStream = Outgoing<api::PortForwardOutput>;

    async fn port_forward(&self, request: Request<Streaming<api::PortForwardInput>>) -> Result<Response<Self::PortForwardStream>, Status> {
        port_forward::serve(&self.pod, request.into_inner()).await.map(Response::new)
    }
}
