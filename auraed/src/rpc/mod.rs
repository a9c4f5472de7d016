//! One file per RPC: conversion and status mapping only.

mod call;
mod convert;
mod pod;
mod status;
mod supervisor;
mod vm;

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Server;

pub use convert::is_container_id;
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
