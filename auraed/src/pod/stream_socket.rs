//! Connections to the pod's ports without gRPC, on a socket beside that of the services: what is forwarded in bulk.
//!
//! ```text
//!  client  port: u16
//!  auraed  0: connected, or 1 and the reason to the end of the connection
//!  both    frames: length: u32, then as many bytes; length 0 is the half-close
//!  auraed  length 0xffff_ffff: the pod's connection broke; the reason to the end of the connection
//! ```
//! Numbers are big-endian. The client closes when both directions are over, or earlier when it gives the connection up. Who may connect is
//! who may enter the directory, as with the services.

use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixListener, UnixStream, unix};

use super::Pod;
use super::port_forward;

const CONNECTED: u8 = 0;
const REFUSED: u8 = 1;
const BROKEN: u32 = u32::MAX;
const HEAD_BYTES: usize = 4;
/// A frame with its head fills what the daemon reads at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// For the port, which comes at once.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// While the pod takes nothing, between two looks whether the client is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Before the next attempt when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub async fn serve(listener: UnixListener, pod: Pod) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let pod = pod.clone();
                tokio::spawn(async move {
                    if let Err(error) = forward(client, &pod).await {
                        tracing::debug!(%error, "a client left its forwarded connection");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to a port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// An error is the client's: there is nobody to tell.
async fn forward(mut client: UnixStream, pod: &Pod) -> io::Result<()> {
    let port = tokio::time::timeout(HELLO_LIMIT, client.read_u16()).await??;
    match port_forward::dial(pod, port.into()).await {
        Ok(stream) => {
            client.write_u8(CONNECTED).await?;
            relay(client, stream).await
        }
        Err(error) => {
            client.write_u8(REFUSED).await?;
            client.write_all(error.to_string().as_bytes()).await
        }
    }
}

/// Whose side broke.
enum Broken {
    Client(io::Error),
    Pod(io::Error),
}

/// Copies both ways until the client closes or either side breaks.
async fn relay(client: UnixStream, stream: TcpStream) -> io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let (from_pod, to_pod) = stream.into_split();
    let broken = tokio::select! {
        broken = feed_pod(from_client, to_pod) => broken,
        broken = feed_client(from_pod, &mut to_client) => broken,
    };
    match broken {
        None => Ok(()),
        Some(Broken::Client(error)) => Err(error),
        Some(Broken::Pod(error)) => {
            to_client.write_u32(BROKEN).await?;
            to_client.write_all(format!("forward the connection: {error}").as_bytes()).await
        }
    }
}

/// Until the client closes.
async fn feed_pod(mut client: unix::OwnedReadHalf, mut pod: OwnedWriteHalf) -> Option<Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut left = match client.read_u32().await {
            Ok(length) => length as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            Err(error) => return Some(Broken::Client(error)),
        };
        if left == 0
            && let Err(error) = pod.shutdown().await
        {
            return Some(Broken::Pod(error));
        }
        while left > 0 {
            let room = left.min(BUFFER_BYTES);
            let count = match client.read(&mut buffer[..room]).await {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) => return Some(Broken::Client(error)),
            };
            tokio::select! {
                biased;
                written = pod.write_all(&buffer[..count]) => if let Err(error) = written {
                    return Some(Broken::Pod(error));
                },
                () = hung_up(&client) => return None,
            }
            left -= count;
        }
    }
}

/// What the client sent hides its end from those who do not read on; the kernel tells when it is asked for that alone.
async fn hung_up(client: &unix::OwnedReadHalf) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let mut look = [PollFd::new(client.as_ref().as_fd(), PollFlags::POLLHUP)];
        if poll(&mut look, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            return;
        }
    }
}

/// Until something breaks: after the pod's half-close there is nothing more to do.
async fn feed_client(mut pod: OwnedReadHalf, client: &mut unix::OwnedWriteHalf) -> Option<Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match pod.read(&mut buffer[HEAD_BYTES..]).await {
            Ok(count) => count,
            Err(error) => return Some(Broken::Pod(error)),
        };
        // At most the buffer's size.
        buffer[..HEAD_BYTES].copy_from_slice(&(count as u32).to_be_bytes());
        if let Err(error) = client.write_all(&buffer[..HEAD_BYTES + count]).await {
            return Some(Broken::Client(error));
        }
        if count == 0 {
            return pending().await;
        }
    }
}
