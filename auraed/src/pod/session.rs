//! Live streams of a process: one client's Exec or Attach.
//!
//! ```text
//! client ──► input ──► stdin, window size          (waits while the process does not read)
//! client ◄── output ◄── stdout, stderr, exit code   (exec: the process waits while the client does not read)
//! ```
//! An attached client that falls behind is let go instead: the container does not wait for those who look on.
//! When the client of an exec is lost its terminal hangs up and its pipes close; after a grace period the process is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::container::Live;
use super::errors::PodError;
use super::exec::{ExecProcess, OUTPUT_DRAIN};
use crate::io::cri_log::OutputStream;
use crate::io::pump::{ATTACH_QUEUE_CHUNKS, Subscriber};
use crate::io::stdin::Stdin;
use crate::io::stdio::{self, AsyncStream, Streams};

/// What a process may still do when its client is lost.
const LOST_CLIENT_GRACE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 16 * 1024;

/// From the client.
pub enum Input {
    Stdin(Bytes),
    StdinClose,
    Resize { width: u16, height: u16 },
}

/// To the client.
#[derive(Debug)]
pub enum Output {
    Started,
    Bytes(OutputStream, Bytes),
    ExitCode(i32),
}

pub type Outputs = mpsc::Sender<Result<Output, PodError>>;

/// Which streams the client has asked for.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Wanted {
    fn has(self, which: OutputStream) -> bool {
        match which {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }
}

/// Serves an exec'd process to its end.
pub async fn exec(mut process: ExecProcess, mut streams: Streams, wanted: Wanted, mut input: mpsc::Receiver<Input>, output: Outputs) {
    let (ended, over) = watch::channel(false);
    let stdin = streams.take_stdin();
    let terminal = streams.terminal();
    let feeding = async {
        let stdin = stdin.filter(|_| wanted.stdin);
        while let Some(message) = input.recv().await {
            let end = matches!(message, Input::StdinClose);
            feed(message, stdin.as_ref(), terminal.as_deref()).await;
            if let Some(stdin) = stdin.as_ref().filter(|_| end) {
                stdin.close().await;
            }
        }
        if let Some(stdin) = &stdin {
            stdin.close().await;
        }
        std::future::pending::<()>().await;
    };
    let running = async {
        let _ = output.send(Ok(Output::Started)).await;
        let reading = read_streams(&streams, wanted, &output, over);
        let ending = async {
            let code = process.ended().await;
            ended.send_replace(true);
            code
        };
        tokio::join!(ending, reading).0
    };
    let result = tokio::select! {
        code = running => Some(code),
        () = feeding => None,
        () = output.closed() => None,
    };
    match result {
        Some(code) => {
            process.release();
            let _ = output.send(Ok(Output::ExitCode(code))).await;
        }
        None => {
            // The terminal hangs up, the pipes close.
            drop((streams, terminal));
            match timeout(LOST_CLIENT_GRACE, process.ended()).await {
                Ok(_) => process.release(),
                Err(_) => process.kill().await,
            }
        }
    }
}

async fn read_streams(streams: &Streams, wanted: Wanted, output: &Outputs, over: watch::Receiver<bool>) {
    match streams {
        Streams::Pipes { stdout, stderr, .. } => {
            let reading_stdout = forward(stdout, OutputStream::Stdout, wanted, output, over.clone());
            let reading_stderr = forward(stderr, OutputStream::Stderr, wanted, output, over);
            tokio::join!(reading_stdout, reading_stderr);
        }
        Streams::Terminal(master) => forward(master, OutputStream::Stdout, wanted, output, over).await,
    }
}

/// Until the stream ends, or the process has ended and nothing has come for a while: a background child may hold the stream.
async fn forward(stream: &AsyncStream, which: OutputStream, wanted: Wanted, output: &Outputs, mut over: watch::Receiver<bool>) {
    let mut deadline: Option<Instant> = None;
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        tokio::select! {
            // On a busy host both may be true at once: what can be read comes first.
            biased;
            ready = stream.readable() => if ready.is_err() { return },
            () = expired(deadline) => return,
            _ = over.wait_for(|over| *over), if deadline.is_none() => deadline = Some(Instant::now() + OUTPUT_DRAIN),
        }
        match stream.try_read(&mut buffer) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => return,
            Ok(Some(count)) => {
                if wanted.has(which) && output.send(Ok(Output::Bytes(which, Bytes::copy_from_slice(&buffer[..count])))).await.is_err() {
                    return;
                }
                deadline = deadline.map(|_| Instant::now() + OUTPUT_DRAIN);
            }
        }
    }
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A failing stdin or window shows in what the process does; there is nobody to tell.
async fn feed(input: Input, stdin: Option<&Stdin>, terminal: Option<&AsyncStream>) {
    match input {
        Input::Stdin(bytes) => {
            if let Some(stdin) = stdin {
                let _ = stdin.write(&bytes).await;
            }
        }
        Input::StdinClose => {}
        Input::Resize { width, height } => {
            if let Some(terminal) = terminal {
                let _ = stdio::resize(terminal, width, height);
            }
        }
    }
}

/// Serves an attached client until the container's output ends, the client leaves, or it falls behind.
pub async fn attach(live: Live, wanted: Wanted, mut input: mpsc::Receiver<Input>, output: Outputs) {
    let (chunks, mut queue) = mpsc::channel(ATTACH_QUEUE_CHUNKS);
    let lagged = Arc::new(AtomicBool::new(false));
    let subscriber = Subscriber { stdout: wanted.stdout, stderr: wanted.stderr, chunks, lagged: Arc::clone(&lagged) };
    if let Err(error) = live.output.subscribe(subscriber).await {
        let _ = output.send(Err(error.into())).await;
        return;
    }
    let stdin = live.stdin.clone().filter(|_| wanted.stdin);
    let mut wrote = false;
    let feeding = async {
        while let Some(message) = input.recv().await {
            wrote |= matches!(message, Input::Stdin(_) | Input::StdinClose);
            let end = matches!(message, Input::StdinClose);
            feed(message, stdin.as_ref(), live.terminal.as_deref()).await;
            if let Some(stdin) = stdin.as_ref().filter(|_| end && live.stdin_once) {
                stdin.close().await;
            }
        }
        // The client only listens from now on.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let _ = output.send(Ok(Output::Started)).await;
        while let Some(chunk) = queue.recv().await {
            if output.send(Ok(Output::Bytes(chunk.stream, chunk.bytes))).await.is_err() {
                return;
            }
        }
        if lagged.load(Ordering::Relaxed) {
            let _ = output.send(Err(PodError::SlowReader)).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = feeding => {}
        () = output.closed() => {}
    }
    if let Some(stdin) = stdin.filter(|_| wrote && live.stdin_once) {
        stdin.close().await;
    }
    // Lets the last message leave before the stream's end.
    sleep(Duration::ZERO).await;
}
