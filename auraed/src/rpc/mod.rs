//! One file per RPC: conversion and status mapping only.

mod call;
mod convert;
mod guest;
mod pod;
mod status;
mod supervisor;
mod vm;

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
use tonic::transport::Server;

use crate::init::guest::Guest;
use crate::init::port::{Gone, Port};
use crate::io::log_relay::LogRelay;
use crate::pod::Pod;
pub use convert::is_container_id;
pub use guest::GuestServices;
pub use pod::PodServices;
pub use vm::VmServices;

/// The contract these services speak.
pub const CONTRACT_VERSION: u32 = 1;

/// ExecSync answers with two streams of 16 MiB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Calls under way on one connection.
pub const MAX_STREAMS: u32 = 256;
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Covers every stream's window: one stream that is not read cannot starve the others.
pub const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * STREAM_WINDOW_BYTES;

/// The virtio-serial port on which a guest is served, and what it says there before HTTP/2 begins: what the host sends
/// earlier never arrives.
pub const CONTROL_PORT: &str = "aurae.control";
pub const GREETING: &[u8; 8] = b"AURAED1\n";
/// What the host says to a guest that was saved before it greeted. Its port is open: this arrives.
pub const RESTORED: u8 = b'\n';
/// Every call of a pod shares a guest's one connection, and the smallest guest has 64 MiB: a quarter of that is the most that
/// streams which nobody reads can hold there. A round trip through the port takes under a millisecond, so this window still
/// lets one stream have some 80 MB/s.
pub const GUEST_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub const GUEST_CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * GUEST_STREAM_WINDOW_BYTES;

/// The answer to a call.
pub type Answer = BoxFuture<http::Response<Body>, Infallible>;

/// Several services on one socket, told apart by the path. tonic's own router would bring a web framework along, for two or three paths.
pub trait Serve: Clone + Send + Sync + 'static {
    fn serve(&self, request: http::Request<Body>) -> Answer;
}

/// Serves until `stopped`, then until open calls have ended.
pub async fn serve(
    listener: UnixListener,
    services: impl Serve,
    stopped: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_with_incoming_shutdown(Logged(services), UnixListenerStream::new(listener), stopped)
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
    let one = tokio_stream::iter([Ok::<_, Infallible>(port)]).chain(tokio_stream::pending());
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(GUEST_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(GUEST_CONNECTION_WINDOW_BYTES)
        .serve_with_incoming_shutdown(Logged(GuestServices::new(pod, guest, logs)), one, async {
            let _ = gone.await;
        })
        .await?;
    Ok(())
}

/// The service and method that a path names.
fn method(path: &str) -> (&str, &str) {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default()
}

/// Each call as a line of the log.
#[derive(Clone)]
struct Logged<S>(S);

impl<S: Serve> Service<http::Request<Body>> for Logged<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = call::Call::begin(&request);
        let serve = self.0.serve(request);
        match call {
            Some(call) => Box::pin(call.answer(serve)),
            None => serve,
        }
    }
}
