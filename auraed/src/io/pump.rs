//! One task per container: reads its output, writes the log, hands copies to attached clients.
//!
//! ```text
//! pipe or terminal ──► pump ──► splitter ──► log: a file, or the relay to the host
//!                        └────► attached clients (bounded queues)
//! ```
//! An attached client whose queue is full is let go: it stalls neither the container nor the log nor the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::cri_log::{LineSplitter, OutputStream};
use super::log_sink::{LogSink, ReopenError};
use super::stdio::{AsyncStream, Streams};
use super::timestamp::{format_utc, now_ns};

/// Bytes taken from a stream at once.
const READ_BYTES: usize = 16 * 1024;
/// Reads after the deadline, so that a process that never stops writing cannot hold the end up: at most 1 MiB.
const LAST_READS: usize = 64;
/// Chunks an attached client may be behind: at most 1 MiB.
pub const ATTACH_QUEUE_CHUNKS: usize = 64;

/// A piece of output as attached clients get it.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub stream: OutputStream,
    pub bytes: Bytes,
}

#[derive(Debug, Error)]
pub enum PumpError {
    #[error(transparent)]
    Reopen(#[from] ReopenError),
    #[error("the container's output has ended")]
    Ended,
}

/// Who wants a copy of the output from now on.
pub struct Subscriber {
    pub stdout: bool,
    pub stderr: bool,
    pub chunks: mpsc::Sender<Chunk>,
    /// Set before it is let go for being behind.
    pub lagged: Arc<AtomicBool>,
}

enum Command {
    Reopen(oneshot::Sender<Result<(), ReopenError>>),
    Subscribe(Subscriber),
    Finish(Instant),
}

/// The pump of a container as its owner holds it.
pub struct Pump {
    commands: mpsc::Sender<Command>,
    task: tokio::task::JoinHandle<()>,
}

/// For those who attach: can subscribe, nothing else.
#[derive(Clone)]
pub struct PumpSubscription(mpsc::Sender<Command>);

impl Pump {
    /// Starts reading. Without a log the output is discarded after the attached clients got it.
    pub fn start(streams: Streams, log: Option<LogSink>) -> Self {
        let (commands, receiver) = mpsc::channel(4);
        let (stdout, stderr) = match streams {
            Streams::Pipes { stdout, stderr, .. } => {
                (Source::new(Arc::new(stdout), OutputStream::Stdout), Some(Source::new(Arc::new(stderr), OutputStream::Stderr)))
            }
            Streams::Terminal(master) => (Source::new(master, OutputStream::Stdout), None),
        };
        let pumping = Pumping { stdout: Some(stdout), stderr, log, subscribers: Vec::new(), records: Vec::new() };
        Self { commands, task: tokio::spawn(pumping.run(receiver)) }
    }

    /// Returns when every later record goes to the file now at the log path.
    pub async fn reopen_log(&self) -> Result<(), PumpError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Reopen(reply)).await.map_err(|_| PumpError::Ended)?;
        Ok(answer.await.map_err(|_| PumpError::Ended)??)
    }

    pub fn subscription(&self) -> PumpSubscription {
        PumpSubscription(self.commands.clone())
    }

    /// Waits until all output is in the log file. At most `limit` for the output, for a process elsewhere may hold the pipe for
    /// ever; as long as it takes for the host of a guest to write what was read.
    pub async fn finish(self, limit: Duration) {
        if self.commands.send(Command::Finish(Instant::now() + limit)).await.is_ok() && self.task.await.is_err() {
            tracing::error!("a log pump ended abnormally");
        }
    }
}

impl PumpSubscription {
    pub async fn subscribe(&self, subscriber: Subscriber) -> Result<(), PumpError> {
        self.0.send(Command::Subscribe(subscriber)).await.map_err(|_| PumpError::Ended)
    }
}

struct Source {
    stream: Arc<AsyncStream>,
    splitter: LineSplitter,
}

impl Source {
    fn new(stream: Arc<AsyncStream>, which: OutputStream) -> Self {
        Self { stream, splitter: LineSplitter::new(which) }
    }
}

struct Pumping {
    stdout: Option<Source>,
    stderr: Option<Source>,
    log: Option<LogSink>,
    subscribers: Vec<Subscriber>,
    /// Reused between reads.
    records: Vec<u8>,
}

impl Pumping {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut deadline: Option<Instant> = None;
        loop {
            if deadline.is_some() && self.stdout.is_none() && self.stderr.is_none() {
                break;
            }
            let room = self.log.as_ref().is_none_or(LogSink::has_room);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Finish(at)) => deadline = Some(at),
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = ready(self.stdout.as_ref()), if room => { self.read(OutputStream::Stdout); },
                () = ready(self.stderr.as_ref()), if room => { self.read(OutputStream::Stderr); },
                () = wait_for_room(self.log.as_ref()), if !room => {}
                () = expired(deadline) => {
                    self.drain(OutputStream::Stdout);
                    self.drain(OutputStream::Stderr);
                }
            }
        }
        drop(commands);
        if let Some(log) = &self.log {
            log.flushed().await;
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reopen(reply) => match &mut self.log {
                Some(log) => log.reopen(reply),
                None => drop(reply.send(Ok(()))),
            },
            Command::Subscribe(subscriber) => self.subscribers.push(subscriber),
            Command::Finish(_) => {}
        }
    }

    fn source(&mut self, which: OutputStream) -> &mut Option<Source> {
        match which {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Whether there may be more to read.
    fn read(&mut self, which: OutputStream) -> bool {
        let mut buffer = [0u8; READ_BYTES];
        let Some(source) = self.source(which) else { return false };
        match source.stream.try_read(&mut buffer) {
            Ok(None) => return false,
            Ok(Some(0)) => self.end(which),
            Ok(Some(count)) => self.deliver(which, &buffer[..count]),
            Err(error) => {
                tracing::error!(%error, "reading a container's output failed");
                self.end(which);
            }
        }
        true
    }

    /// Ends a stream with what can be read of it at once: on a busy host the deadline may pass before the last output was looked at.
    fn drain(&mut self, which: OutputStream) {
        for _ in 0..LAST_READS {
            if !self.read(which) {
                break;
            }
        }
        self.end(which);
    }

    fn deliver(&mut self, which: OutputStream, bytes: &[u8]) {
        if self.log.is_some() {
            let mut records = std::mem::take(&mut self.records);
            records.clear();
            if let Some(source) = self.source(which) {
                source.splitter.push(&format_utc(now_ns()), bytes, &mut records);
            }
            self.log(&records);
            self.records = records;
        }
        if !self.subscribers.is_empty() {
            let chunk = Chunk { stream: which, bytes: Bytes::copy_from_slice(bytes) };
            self.subscribers.retain(|subscriber| !subscriber.wants(which) || subscriber.take(chunk.clone()));
        }
    }

    fn end(&mut self, which: OutputStream) {
        if let Some(mut source) = self.source(which).take() {
            let mut records = Vec::new();
            source.splitter.finish(&format_utc(now_ns()), &mut records);
            self.log(&records);
        }
        if self.stdout.is_none() && self.stderr.is_none() {
            self.subscribers.clear();
        }
    }

    fn log(&mut self, records: &[u8]) {
        if let Some(log) = self.log.as_mut().filter(|_| !records.is_empty()) {
            log.write(records);
        }
    }
}

impl Subscriber {
    /// `false` when it is to be let go.
    fn take(&self, chunk: Chunk) -> bool {
        match self.chunks.try_send(chunk) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Relaxed);
                false
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    fn wants(&self, which: OutputStream) -> bool {
        match which {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }
}

async fn ready(source: Option<&Source>) {
    match source {
        // A failed wait shows again, with its cause, in the read that follows.
        Some(source) => drop(source.stream.readable().await),
        None => std::future::pending().await,
    }
}

async fn wait_for_room(log: Option<&LogSink>) {
    if let Some(log) = log {
        log.room().await;
    }
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
