//! The way to the guest: HTTP/2 over one stream that lasts as long as the VM.
//!
//! ```text
//!  call ──► relay ──► HTTP/2 connection ──► QEMU ──► port aurae.control ──► the guest's auraed
//! ```
//! QEMU throws away what we send while the guest has not opened its port, so the guest speaks first: eight bytes, after which both sides
//! speak HTTP/2. Requests and answers pass as they are, bodies under the flow control of both connections.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};

use super::errors::VmError;
use crate::rpc::{CONNECTION_WINDOW_BYTES, GREETING, RESTORED, STREAM_WINDOW_BYTES};

/// Of one request's body, kept for a guest that does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How long the rest of a greeting may take after its first byte.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
const AUTHORITY: &str = "guest";

/// Where the way to the guest leads at the moment.
#[derive(Clone)]
pub enum Link {
    /// No VM.
    NotStarted,
    /// The guest has not spoken yet.
    Booting,
    Open(SendRequest<Body>),
    /// The connection has ended, and why; the VM's end follows.
    Broken(String),
    /// The VM has ended, and why.
    Ended(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Relay(watch::Sender<Link>);

impl Default for Relay {
    fn default() -> Self {
        Self(watch::Sender::new(Link::NotStarted))
    }
}

impl Relay {
    pub fn set(&self, link: Link) {
        self.0.send_replace(link);
    }

    /// Waits while the guest boots.
    async fn opened(&self) -> Result<SendRequest<Body>, VmError> {
        let mut links = self.0.subscribe();
        let link = links.wait_for(|link| !matches!(link, Link::Booting)).await.map_err(|_| VmError::ShuttingDown)?.clone();
        match link {
            Link::Open(sender) => Ok(sender),
            Link::Broken(_) | Link::Ended(_) => Err(self.lost().await),
            Link::NotStarted | Link::Booting => Err(VmError::NotStarted),
        }
    }

    /// Waits until the guest can never be spoken to again.
    pub async fn over(&self) {
        // Without a sender there is no VM either.
        let _ = self.0.subscribe().wait_for(|link| matches!(link, Link::Broken(_) | Link::Ended(_))).await;
    }

    /// Passes a request on; its answer, or why there is none.
    pub async fn forward(&self, request: http::Request<Body>) -> Result<http::Response<Body>, VmError> {
        let request = addressed(request)?;
        let mut sender = self.opened().await?;
        // Not ready is closed.
        let sent = match sender.ready().await {
            Ok(()) => sender.send_request(request).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(response) => Ok(response.map(Body::new)),
            Err(error) if error.is_user() => Err(VmError::Ended { reason: format!("the call was not sent: {}", causes(&error)) }),
            Err(_) => Err(self.lost().await),
        }
    }

    /// Why the guest does not answer. The end of the VM, which follows, explains more than the end of a connection.
    async fn lost(&self) -> VmError {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut links = self.0.subscribe();
        let ended = links.wait_for(|link| matches!(link, Link::Ended(_)));
        let ended = tokio::time::timeout(PATIENCE, ended).await.ok().and_then(Result::ok).map(|link| link.clone());
        match ended.unwrap_or_else(|| self.0.borrow().clone()) {
            Link::Ended(reason) | Link::Broken(reason) => VmError::Ended { reason },
            _ => VmError::Ended { reason: "the guest broke the call off".to_owned() },
        }
    }
}

/// Our own calls of the guest go the same way.
impl Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let relay = self.clone();
        Box::pin(async move { Ok(relay.forward(request).await.unwrap_or_else(|error| Status::unavailable(error.to_string()).into_http())) })
    }
}

fn causes(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// HTTP/2 wants a scheme and an authority of every request; a path is all that the guest looks at.
fn addressed(mut request: http::Request<Body>) -> Result<http::Request<Body>, VmError> {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri = http::Uri::builder().scheme("http").authority(AUTHORITY).path_and_query(path).build();
    *request.uri_mut() = uri.map_err(|error| VmError::invalid("path", error.to_string()))?;
    *request.version_mut() = http::Version::HTTP_2;
    Ok(request)
}

/// The connection, which does its work when it is polled, and the way to send over it.
type Opened<T> = (SendRequest<Body>, Connection<TokioIo<T>, Body, TokioExecutor>);

/// Lets a guest go on that was saved before it spoke. QEMU takes this from the stream once the guest is there.
pub async fn wake(stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), String> {
    stream.write_all(&[RESTORED]).await.map_err(|error| format!("the saved guest cannot be woken: {error}"))
}

/// Waits for the guest and opens the connection. An error is the reason why this guest can never be spoken to.
pub async fn open<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut stream: T) -> Result<Opened<T>, String> {
    greeted(&mut stream).await?;
    Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("the guest cannot be spoken to: {}", causes(&error)))
}

async fn greeted<T: AsyncRead + Unpin>(stream: &mut T) -> Result<(), String> {
    const CLOSED: &str = "the control port was closed before the guest spoke";
    let mut greeting = [0u8; GREETING.len()];
    // A guest may take its time to boot: whoever asked for it knows how long.
    if !matches!(stream.read(&mut greeting[..1]).await, Ok(1)) {
        return Err(CLOSED.to_owned());
    }
    match tokio::time::timeout(GREETING_LIMIT, stream.read_exact(&mut greeting[1..])).await {
        Ok(Ok(_)) if greeting == *GREETING => Ok(()),
        Ok(Err(_)) => Err(CLOSED.to_owned()),
        Ok(Ok(_)) => Err(format!("the guest's auraed is not one of ours: it began with {:?}", String::from_utf8_lossy(&greeting))),
        Err(_) => Err("the guest's auraed stopped in the middle of its greeting".to_owned()),
    }
}
