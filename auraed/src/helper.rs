//! A short-lived process of our own that does what a process with threads cannot: it is handed a plan as JSON and reports in lines.
//!
//! The plan goes as a big-endian length of 32 bits and the text. Standard input of the helper is the socket for both directions.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::fd;

/// The answer that lets a helper go on.
pub const GO: u8 = b'g';

/// A step that failed, by name.
pub struct Failure(pub &'static str, pub io::Error);

/// Gives a step its name.
pub trait Step<T> {
    fn step(self, name: &'static str) -> Result<T, Failure>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, name: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure(name, error))
    }
}

/// A plan as it goes over the socket.
pub fn message(plan: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(plan)?;
    let mut message = u32::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    message.extend_from_slice(&text);
    Ok(message)
}

/// The helper's end.
pub struct Control(UnixStream);

impl Control {
    pub fn from_stdin() -> io::Result<Self> {
        Ok(Self(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// The same connection on another descriptor.
    pub fn moved(self, to: impl FnOnce(BorrowedFd<'_>) -> io::Result<OwnedFd>) -> io::Result<Self> {
        Ok(Self(UnixStream::from(to(self.0.as_fd())?)))
    }

    pub fn plan<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0u8; 4];
        self.0.read_exact(&mut length)?;
        let mut text = vec![0u8; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The descriptors that come before the plan.
    pub fn descriptors(&mut self) -> io::Result<Vec<OwnedFd>> {
        Ok(fd::receive_fds(self.0.as_fd(), &mut [0u8])?.1)
    }

    /// Waits for `GO`.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut byte = [0u8];
        self.0.read_exact(&mut byte)
    }

    /// One line in one write, for two processes may report on this socket. A failure shows as an end without a report.
    pub fn report(&mut self, report: &impl Serialize) {
        if let Ok(mut line) = serde_json::to_string(report) {
            line.push('\n');
            let _ = self.0.write_all(line.as_bytes());
        }
    }
}
