//! One file per RPC: conversion and status mapping only.

mod call;
mod convert;
mod pod;
mod status;
mod supervisor;

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Server;

use crate::api::pod::v0::pod_service_server::PodServiceServer;
use crate::api::supervisor::v0::supervisor_service_server::{SERVICE_NAME as SUPERVISOR, SupervisorServiceServer};
use crate::pod::Pod;
use crate::pod::supervisor::Supervisor;

/// The contract these services speak.
pub const CONTRACT_VERSION: u32 = 1;

/// ExecSync answers with two streams of 16 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const MAX_STREAMS: u32 = 256;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Covers every stream's window: one stream that is not read cannot starve the others.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// Serves both contracts until `stopped`, then until open calls have ended.
pub async fn serve(
    listener: UnixListener,
    pod: Pod,
    supervisor: Supervisor,
    stopped: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let pod_service = PodServiceServer::new(pod::PodRpc::new(pod))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let services = Services { pod: pod_service, supervisor: SupervisorServiceServer::new(supervisor::SupervisorRpc::new(supervisor)) };
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_with_incoming_shutdown(services, UnixListenerStream::new(listener), stopped)
        .await
}

/// Both services on one socket. tonic's own router would bring a web framework along, for two paths.
#[derive(Clone)]
struct Services {
    pod: PodServiceServer<pod::PodRpc>,
    supervisor: SupervisorServiceServer<supervisor::SupervisorRpc>,
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = call::Call::begin(&request);
        let serve = if request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(SUPERVISOR)) {
            self.supervisor.call(request)
        } else {
            // Answers Unimplemented to what it does not know.
            self.pod.call(request)
        };
        match call {
            Some(call) => Box::pin(call.answer(serve)),
            None => serve,
        }
    }
}
