//! The guest's side of the server: takes requests off the port's socket, one after the other, and answers them there.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use fuse_backend_rs::abi::fuse_abi::{InHeader, Opcode, OutHeader};
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};

use super::messages::{Inbox, MAX_BYTES};
use super::volumes::Volumes;

const REQUEST_HEADER_BYTES: usize = size_of::<InHeader>();
const REPLY_HEADER_BYTES: u32 = size_of::<OutHeader>() as u32;

/// Why no more requests are answered.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The virtual machine is gone.
    #[error("the port was closed")]
    Closed,
    /// What the guest sends is no FUSE.
    #[error("the guest sent a malformed message: {0}")]
    Malformed(String),
    /// The port's socket failed.
    #[error("the port failed: {0}")]
    Port(#[from] io::Error),
}

/// Serves until the port closes or the guest breaks the protocol: what comes after a message that is not understood means nothing.
pub fn serve(mut port: UnixStream, volumes: Arc<Volumes>) -> Ended {
    let server = Server::new(volumes);
    let mut inbox = Inbox::new(REQUEST_HEADER_BYTES);
    let mut reply = vec![0; MAX_BYTES];
    loop {
        let message = match inbox.next(&mut port) {
            Ok(Some(message)) => message,
            Ok(None) => return Ended::Closed,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ended::Malformed(error.to_string()),
            Err(error) => return Ended::Port(error),
        };
        if let Err(ended) = answer(&server, &mut port, message, &mut reply) {
            return ended;
        }
    }
}

fn answer(server: &Server<Arc<Volumes>>, port: &mut UnixStream, message: &mut [u8], reply: &mut [u8]) -> Result<(), Ended> {
    if opcode(message) == Opcode::Destroy as u32 {
        // It ends a file system for every volume at once; the pod's end does that.
        return Ok(port.write_all(&refusal(unique(message), libc::EPERM))?);
    }
    let described = (opcode(message), message.len());
    let malformed = |problem: String| Ended::Malformed(format!("operation {}, {} bytes: {problem}", described.0, described.1));
    let reader = Reader::<()>::from_fuse_buffer(FuseBuf::new(message)).map_err(|error| malformed(error.to_string()))?;
    let writer = FuseDevWriter::<()>::new(port.as_raw_fd(), reply).map_err(|error| malformed(error.to_string()))?;
    match server.handle_message(reader, Writer::FuseDev(writer), None, None) {
        Ok(_) => Ok(()),
        Err(fuse_backend_rs::Error::EncodeMessage(error)) => Err(Ended::Port(error)),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// The second word of a request.
fn opcode(message: &[u8]) -> u32 {
    message.get(4..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The number by which the guest knows a request, after length and operation.
fn unique(message: &[u8]) -> u64 {
    message.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn refusal(unique: u64, errno: i32) -> Vec<u8> {
    [&REPLY_HEADER_BYTES.to_ne_bytes()[..], &(-errno).to_ne_bytes(), &unique.to_ne_bytes()].concat()
}

#[cfg(test)]
#[path = "serve_test.rs"]
mod tests;
