//! Where a container's log records go: into a file, or, in a guest, to the host.

use std::path::Path;

use thiserror::Error;
use tokio::sync::oneshot;

use super::log_file::{LogFile, LogFileError};
use super::log_relay::{LogRelay, RelayedLog};

#[derive(Debug, Error)]
pub enum ReopenError {
    #[error(transparent)]
    File(#[from] LogFileError),
    #[error("the host could not open the log anew: {0}")]
    Host(String),
}

/// Where the logs of all containers go.
pub enum Logs {
    Files,
    Relay(LogRelay),
}

impl Logs {
    /// Without a path there is no log. In a guest the path says only that: the host has opened its file before.
    pub fn open(&self, container: &str, path: &Path) -> Result<Option<LogSink>, LogFileError> {
        Ok(match self {
            _ if path.as_os_str().is_empty() => None,
            Self::Files => Some(LogSink::File(LogFile::open(path)?)),
            Self::Relay(relay) => Some(LogSink::Relay(relay.open(container))),
        })
    }
}

/// Where the log of one container goes.
pub enum LogSink {
    File(LogFile),
    Relay(RelayedLog),
}

impl LogSink {
    /// Whether more output should be read. A file always has room: it drops rather than let a container wait for a disk.
    pub fn has_room(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Relay(log) => log.has_room(),
        }
    }

    /// Resolves when there is room. Cancel safe.
    pub async fn room(&self) {
        match self {
            Self::File(_) => {}
            Self::Relay(log) => log.room().await,
        }
    }

    /// Whole records, each ending in a newline.
    pub fn write(&mut self, records: &[u8]) {
        match self {
            Self::File(log) => log.write(records),
            Self::Relay(log) => log.write(records),
        }
    }

    /// Every later record goes to the file that is at the log's path when the answer comes. Whoever asked may be gone by then.
    pub fn reopen(&mut self, reply: oneshot::Sender<Result<(), ReopenError>>) {
        match self {
            Self::File(log) => drop(reply.send(log.reopen().map_err(ReopenError::File))),
            Self::Relay(log) => {
                let (answer, answered) = oneshot::channel();
                log.reopen(answer);
                tokio::spawn(async move {
                    if let Ok(result) = answered.await {
                        let _ = reply.send(result.map_err(ReopenError::Host));
                    }
                });
            }
        }
    }

    /// Waits until every record is in the file.
    pub async fn flushed(&self) {
        match self {
            Self::File(_) => {}
            Self::Relay(log) => log.flushed().await,
        }
    }
}
