//! The OCI console socket: the runtime opens the terminal inside the container and sends us its master.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

use crate::sys::fd;

/// How long a runtime that has returned may take to have sent the master.
const RECEIVE_LIMIT: Duration = Duration::from_secs(10);

/// A listening console socket; its file is removed with it.
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    /// How the OCI runtime reaches it: through our descriptor of the directory, for a socket address holds 108 bytes only.
    address: PathBuf,
    _directory: std::fs::File,
}

impl ConsoleSocket {
    pub fn listen(directory: &Path, name: &str) -> io::Result<Self> {
        let handle = std::fs::File::open(directory)?;
        let address = PathBuf::from(format!("/proc/{}/fd/{}/{name}", std::process::id(), handle.as_fd().as_raw_fd()));
        let path = directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&address)?;
        Ok(Self { listener, path, address, _directory: handle })
    }

    /// What to give as `--console-socket`.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// The terminal's master, sent by the runtime.
    pub async fn receive(self) -> io::Result<OwnedFd> {
        let receiving = async {
            let (stream, _) = self.listener.accept().await?;
            loop {
                stream.readable().await?;
                match stream.try_io(tokio::io::Interest::READABLE, || fd::receive_fd(stream.as_fd())) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(RECEIVE_LIMIT, receiving).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Gone already is what we want.
        let _ = std::fs::remove_file(&self.path);
    }
}
