//! The stdin of a container that keeps one: attached clients write to it, one at a time.

use std::io;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::stdio::AsyncStream;

/// Shared by the attached clients. A client that writes waits for the process to read; others are not concerned unless they write too.
#[derive(Clone)]
pub enum Stdin {
    /// The write end; `None` once it has been closed. The lock is held across one chunk so that chunks are not interleaved.
    Pipe(Arc<Mutex<Option<AsyncStream>>>),
    /// A terminal is written to by its master and has no end of its own.
    Terminal(Arc<AsyncStream>),
}

impl Stdin {
    pub fn pipe(end: AsyncStream) -> Self {
        Self::Pipe(Arc::new(Mutex::new(Some(end))))
    }

    pub fn terminal(master: Arc<AsyncStream>) -> Self {
        Self::Terminal(master)
    }

    /// Success also when the process no longer reads: what it does not want is dropped, as a shell would.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let result = match self {
            Self::Pipe(pipe) => match pipe.lock().await.as_ref() {
                Some(stream) => stream.write_all(bytes).await,
                None => return Ok(()),
            },
            Self::Terminal(master) => master.write_all(bytes).await,
        };
        match result {
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EPIPE | nix::libc::EIO)) => Ok(()),
            other => other,
        }
    }

    /// The process sees the end of its stdin; on a terminal nothing happens.
    pub async fn close(&self) {
        if let Self::Pipe(pipe) = self {
            pipe.lock().await.take();
        }
    }
}
