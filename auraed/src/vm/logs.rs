//! Log files of the guest's containers: the guest sends records, we write them to the files that the daemon named.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::errors::VmError;
use super::relay::Relay;
use crate::api::guest::v0 as api;
use crate::api::guest::v0::guest_service_client::GuestServiceClient;
use crate::api::guest::v0::log_records::Content;
use crate::io::cri_log::MAX_PAYLOAD;
use crate::io::log_file::LogFile;

/// Open at once.
const MAX_FILES: usize = 1024;
/// One message of the guest.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// A record's payload, with its time, stream and tag before it and the newline after.
const MAX_RECORD_BYTES: usize = MAX_PAYLOAD + 64;
/// Before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(200);
/// Acknowledgements on their way.
const QUEUE: usize = 4;

/// The open files. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    files: HashMap<String, (PathBuf, LogFile)>,
    /// Messages that named no open log, or held no records.
    refused: u64,
    /// Number of the newest message that was dealt with.
    through: u64,
}

impl Logs {
    /// Success when it is open at this path already.
    pub fn open(&self, id: &str, path: &Path) -> Result<(), VmError> {
        let mut table = self.lock();
        match table.files.get(id) {
            Some((known, _)) if known == path => return Ok(()),
            Some(_) => return Err(VmError::OtherLog { id: id.to_owned() }),
            None if table.files.len() >= MAX_FILES => return Err(VmError::TooMany { what: "open logs", most: MAX_FILES }),
            None => {}
        }
        let file = LogFile::open(path)?;
        table.files.insert(id.to_owned(), (path.to_owned(), file));
        Ok(())
    }

    /// The guest says nothing of a container whose end it has told: nothing of it is outstanding then.
    pub fn close(&self, id: &str) {
        self.lock().files.remove(id);
    }

    pub fn close_all(&self) {
        self.lock().files.clear();
    }

    /// Follows the guest's records for as long as the VM lives.
    pub async fn follow(self, relay: Relay) {
        loop {
            match self.stream(relay.clone()).await {
                Err(status) => tracing::debug!(error = status.message(), "the stream of the guest's logs broke"),
                Ok(()) => tracing::warn!("the guest ended the stream of its logs"),
            }
            if tokio::time::timeout(PAUSE, relay.over()).await.is_ok() {
                return;
            }
        }
    }

    async fn stream(&self, relay: Relay) -> Result<(), Status> {
        let mut guest = GuestServiceClient::new(relay).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (acks, outgoing) = mpsc::channel(QUEUE);
        // What takes the guest a first time is told with the answers: it sends again what it has no word about.
        let first = api::LogAck::default();
        let _ = acks.send(first).await;
        let mut incoming = guest.logs(ReceiverStream::new(outgoing)).await?.into_inner();
        while let Some(message) = incoming.message().await? {
            let ack = self.take(message);
            if acks.send(ack).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Does what one message says. What makes no sense is dropped, counted and acknowledged: a guest that lies harms its own logs.
    fn take(&self, message: api::LogRecords) -> api::LogAck {
        let mut table = self.lock();
        let number = message.number;
        let mut error = String::new();
        // Sent again over a new stream.
        if number > table.through {
            table.through = number;
            error = match (table.files.get_mut(&message.container_id), message.content) {
                (Some((_, file)), Some(Content::Records(records))) if well_formed(&records) => {
                    file.write(&records);
                    String::new()
                }
                (Some((_, file)), Some(Content::Reopen(_))) => file.reopen().map_or_else(|error| error.to_string(), |()| String::new()),
                (None, Some(Content::Reopen(_))) => table.refuse("no log of this container is open"),
                (None, _) => table.refuse("records of a container without a log"),
                (Some(_), _) => table.refuse("records that are none"),
            };
        }
        api::LogAck { through: table.through, error }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn refuse(&mut self, why: &str) -> String {
        self.refused += 1;
        // The first, and then ever more rarely.
        if self.refused.is_power_of_two() {
            tracing::warn!(refused = self.refused, why, "a message of the guest's logs was dropped");
        }
        why.to_owned()
    }
}

/// Whole lines, none longer than a record can be.
fn well_formed(records: &[u8]) -> bool {
    records.last() == Some(&b'\n') && records.split(|byte| *byte == b'\n').all(|record| record.len() <= MAX_RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(id: &str, number: u64, text: &str) -> api::LogRecords {
        let content = Some(Content::Records(text.to_owned().into()));
        api::LogRecords { container_id: id.to_owned(), number, content }
    }

    fn reopen(id: &str, number: u64) -> api::LogRecords {
        api::LogRecords { container_id: id.to_owned(), number, content: Some(Content::Reopen(api::Reopen {})) }
    }

    #[test]
    fn what_the_guest_says_reaches_only_files_that_were_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let logs = Logs::default();
        logs.open("c", &path).unwrap();
        logs.open("c", &path).unwrap();
        assert!(logs.open("c", Path::new("/other")).is_err());
        assert_eq!(logs.take(records("c", 1, "one\n")), api::LogAck { through: 1, error: String::new() });
        assert_eq!(logs.take(records("../../etc/x", 2, "two\n")).through, 2);
        assert_eq!(logs.take(records("c", 3, "no end")).through, 3);
        assert_eq!(logs.take(records("c", 4, &("x".repeat(MAX_RECORD_BYTES + 1) + "\n"))).through, 4);
        assert_eq!(logs.lock().refused, 3);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
    }

    #[test]
    fn what_is_sent_again_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let logs = Logs::default();
        logs.open("c", &path).unwrap();
        logs.take(records("c", 1, "one\n"));
        logs.take(records("c", 1, "one\n"));
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        assert_eq!(logs.take(reopen("c", 2)).error, "");
        assert!(!logs.take(reopen("d", 3)).error.is_empty());
        logs.take(records("c", 4, "two\n"));
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert_eq!(std::fs::read(dir.path().join("old")).unwrap(), b"one\n");
        logs.close("c");
        logs.take(records("c", 5, "three\n"));
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    }
}
