//! One file per RPC: conversion and status mapping only.

mod call;
mod convert;
mod guest;
mod pod;
mod status;
mod supervisor;

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::task::{Context, Poll};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;

use crate::api::guest::v0::guest_service_server::GuestServiceServer;
use crate::api::pod::v0::pod_service_server::PodServiceServer;
use crate::api::supervisor::v0::supervisor_service_server::SupervisorServiceServer;
use crate::init::guest::Guest;
use crate::init::port::{Gone, Port};
use crate::io::log_relay::LogRelay;
use crate::pod::Pod;
use crate::pod::supervisor::Supervisor;

type Answer = BoxFuture<http::Response<Body>, Infallible>;

/// The contract these services speak.
pub const CONTRACT_VERSION: u32 = 1;

/// ExecSync answers with two streams of 16 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const MAX_STREAMS: u32 = 256;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Covers every stream's window: one stream that is not read cannot starve the others.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// The virtio-serial port on which a guest is served, and what it says there before HTTP/2 begins: what the host sends
/// earlier never arrives.
pub const CONTROL_PORT: &str = "aurae.control";
pub const GREETING: &[u8; 8] = b"AURAED1\n";
/// Every call of a pod shares a guest's one connection, and the smallest guest has 64 MiB: a quarter of that is the most that
/// streams which nobody reads can hold there. A round trip through the port takes under a millisecond, so this window still
/// lets one stream have some 80 MB/s.
pub const GUEST_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub const GUEST_CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * GUEST_STREAM_WINDOW_BYTES;

/// Serves the pod and the supervisor contract until `stopped`, then until open calls have ended.
pub async fn serve(
    listener: UnixListener,
    pod: Pod,
    supervisor: Supervisor,
    stopped: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let services = Services { pod: pod_service(pod), beside: SupervisorServiceServer::new(supervisor::SupervisorRpc::new(supervisor)) };
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_with_incoming_shutdown(services, UnixListenerStream::new(listener), stopped)
        .await
}

/// Greets the host and serves the pod and the guest contract on the one connection there is, until it ends.
pub async fn serve_guest(
    (mut port, gone): (Port, Gone),
    pod: Pod,
    guest: Guest,
    logs: LogRelay,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    port.write_all(GREETING).await?;
    let beside = GuestServiceServer::new(guest::GuestRpc::new(guest, logs)).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let services = Services { pod: pod_service(pod), beside };
    let one = tokio_stream::iter([Ok::<_, Infallible>(port)]).chain(tokio_stream::pending());
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(GUEST_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(GUEST_CONNECTION_WINDOW_BYTES)
        .serve_with_incoming_shutdown(services, one, async {
            let _ = gone.await;
        })
        .await?;
    Ok(())
}

fn pod_service(pod: Pod) -> PodServiceServer<pod::PodRpc> {
    PodServiceServer::new(pod::PodRpc::new(pod)).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The pod contract and the one beside it. tonic's own router would bring a web framework along, for two paths.
#[derive(Clone)]
struct Services<S> {
    pod: PodServiceServer<pod::PodRpc>,
    beside: S,
}

impl<S> Service<http::Request<Body>> for Services<S>
where
    S: NamedService + Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = call::Call::begin(&request);
        let serve = if request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(S::NAME)) {
            self.beside.call(request)
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
