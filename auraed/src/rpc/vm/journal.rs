//! The pod contract's events and states, from a journal that is not a pod's own.

use std::future::Future;

use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::api::pod::v0 as api;
use crate::pod::errors::PodError;
use crate::pod::journal::Journal;
use crate::rpc::Answer;
use crate::rpc::pod::{self, Outgoing};
use crate::rpc::status::status;

/// A function as a service of one method.
struct Method<F>(F);

impl<F, R, M, A> UnaryService<R> for Method<F>
where
    F: Fn(R) -> A,
    A: Future<Output = Result<M, PodError>> + Send + 'static,
{
    type Response = M;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<M>, Status>> + Send>>;

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async { answer.await.map(Response::new).map_err(status) })
    }
}

struct Events(Journal);

impl ServerStreamingService<api::EventsRequest> for Events {
    type Response = api::Event;
    type ResponseStream = Outgoing<api::Event>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<api::EventsRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(pod::events::serve(&self.0, request.into_inner()))))
    }
}

pub fn events(journal: Journal, request: http::Request<Body>) -> Answer {
    Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).server_streaming(Events(journal), request).await) })
}

pub fn acknowledge_events(journal: Journal, request: http::Request<Body>) -> Answer {
    let serve = Method(move |request| {
        let journal = journal.clone();
        async move { pod::acknowledge_events::serve(&journal, request).await }
    });
    Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(serve, request).await) })
}

pub fn list_containers(journal: Journal, request: http::Request<Body>) -> Answer {
    let serve = Method(move |request| {
        let journal = journal.clone();
        async move { pod::list_containers::serve(&journal, request).await }
    });
    Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(serve, request).await) })
}
