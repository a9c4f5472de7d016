//! `auraed dial`: opens connections to ports of pods for the daemon and hands them over, so that what is forwarded passes through no
//! process of ours but the daemon.
//!
//! On standard input, a socket, it speaks what Node's child processes speak with their parent: one JSON object per line. A connection
//! travels with its line, and the next may follow when the parent has acknowledged it.
//!
//! ```text
//!  daemon  {"id": 1, "netns": "/path", "port": 80}      netns "": the host's
//!  auraed  {"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": {"id": 1}}       and the connection
//!  daemon  {"cmd": "NODE_HANDLE_ACK"}                   or NODE_HANDLE_NACK: it did not arrive
//!  auraed  {"id": 1, "error": "why there is none"}
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixStream, unix};
use tokio::sync::mpsc;

use crate::pod::network;
use crate::sys::fd;

#[derive(Deserialize)]
#[serde(untagged)]
enum Order {
    Dial {
        id: u64,
        /// Empty: the one we are in.
        netns: PathBuf,
        port: u16,
    },
    /// Node's own.
    Node { cmd: String },
}

/// How a dial ended.
struct Dialled {
    id: u64,
    result: io::Result<TcpStream>,
}

/// Runs `auraed dial`, which takes no arguments, until the daemon closes its end.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("auraed dial: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> io::Result<()> {
    if !args.is_empty() {
        return Err(io::Error::other("takes no arguments"));
    }
    let channel = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Refused unless it is a socket: this is for the daemon to start.
    channel.local_addr()?;
    channel.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { serve(UnixStream::from_std(channel)?).await })
}

/// Until the daemon closes its end.
async fn serve(channel: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = channel.into_split();
    let mut lines = BufReader::new(reader).lines();
    let (done, mut dialled) = mpsc::unbounded_channel::<Dialled>();
    let mut waiting = VecDeque::new();
    // The one that the daemon has not acknowledged.
    let mut handed: Option<u64> = None;
    loop {
        tokio::select! {
            line = lines.next_line() => match line?.map(|line| serde_json::from_str::<Order>(&line)) {
                None => return Ok(()),
                Some(Ok(Order::Dial { id, netns, port })) => {
                    let done = done.clone();
                    let namespace = (!netns.as_os_str().is_empty()).then_some(netns);
                    tokio::spawn(async move { done.send(Dialled { id, result: network::dial(namespace, port).await }) });
                }
                Some(Ok(Order::Node { cmd })) => if let Some(id) = handed.take() && cmd == "NODE_HANDLE_NACK" {
                    tell(&mut writer, &failure(id, "the connection did not reach the daemon")).await?;
                },
                Some(Err(error)) => return Err(error.into()),
            },
            Some(one) = dialled.recv() => match one.result {
                Ok(stream) => waiting.push_back((one.id, stream)),
                Err(error) => tell(&mut writer, &failure(one.id, &error.to_string())).await?,
            },
        }
        if handed.is_none()
            && let Some((id, stream)) = waiting.pop_front()
        {
            hand_over(&mut writer, id, stream).await?;
            handed = Some(id);
        }
    }
}

fn failure(id: u64, why: &str) -> Value {
    json!({ "id": id, "error": why })
}

async fn tell(writer: &mut unix::OwnedWriteHalf, message: &Value) -> io::Result<()> {
    writer.write_all(format!("{message}\n").as_bytes()).await
}

async fn hand_over(writer: &mut unix::OwnedWriteHalf, id: u64, stream: TcpStream) -> io::Result<()> {
    let message = json!({ "cmd": "NODE_HANDLE", "type": "net.Socket", "msg": { "id": id } });
    let line = format!("{message}\n").into_bytes();
    stream.set_nodelay(true)?;
    // Node takes it as it is, and would wait for the peer in the middle of a write.
    stream.set_nonblocking(true)?;
    let passed = OwnedFd::from(stream);
    let channel: &UnixStream = writer.as_ref();
    let sent = channel.async_io(Interest::WRITABLE, || fd::send_with(channel.as_fd(), &line, &[passed.as_fd()])).await?;
    writer.write_all(&line[sent..]).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream as StdUnixStream;
    use std::time::Duration;

    use super::*;

    /// What Node does.
    struct Parent {
        channel: StdUnixStream,
        serving: std::thread::JoinHandle<io::Result<()>>,
    }

    impl Parent {
        fn start() -> Self {
            let (channel, theirs) = StdUnixStream::pair().unwrap();
            channel.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            theirs.set_nonblocking(true).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serving = std::thread::spawn(move || runtime.block_on(async { serve(UnixStream::from_std(theirs)?).await }));
            Self { channel, serving }
        }

        fn say(&self, message: &Value) {
            (&self.channel).write_all(format!("{message}\n").as_bytes()).unwrap();
        }

        fn dial(&self, id: u64, port: u16) {
            self.say(&json!({ "id": id, "netns": "", "port": port }));
        }

        /// One message, and what came with it.
        fn hear(&self) -> (Value, Option<OwnedFd>) {
            let mut buffer = [0; 4096];
            let (count, descriptors) = fd::receive_fds(self.channel.as_fd(), &mut buffer).unwrap();
            (serde_json::from_slice(&buffer[..count]).unwrap(), descriptors.into_iter().next())
        }

        fn leave(self) -> io::Result<()> {
            drop(self.channel);
            self.serving.join().unwrap()
        }
    }

    #[test]
    fn hands_connections_over_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let parent = Parent::start();
        parent.dial(7, port);
        parent.dial(8, port);
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (message, descriptor) = parent.hear();
            assert_eq!(message["cmd"], "NODE_HANDLE");
            assert_eq!(message["type"], "net.Socket");
            let mut ours = std::net::TcpStream::from(descriptor.unwrap());
            assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let (mut theirs, _) = listener.accept().unwrap();
            ours.write_all(b"through").unwrap();
            let mut bytes = [0; 7];
            theirs.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"through");
            ids.push(message["msg"]["id"].as_u64().unwrap());
            parent.say(&json!({ "cmd": "NODE_HANDLE_ACK" }));
        }
        ids.sort_unstable();
        assert_eq!(ids, [7, 8]);
        parent.leave().unwrap();
    }

    #[test]
    fn tells_why_there_is_no_connection() {
        // Bound and not listening: refused.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let parent = Parent::start();
        parent.dial(1, port);
        let (message, descriptor) = parent.hear();
        assert!(descriptor.is_none());
        assert_eq!(message["id"], 1);
        assert!(message["error"].as_str().unwrap().contains("refused"), "{message}");
        parent.say(&json!({ "id": 2, "netns": "/no/such/namespace", "port": 80 }));
        assert!(parent.hear().0["error"].as_str().unwrap().contains("No such file"));
        parent.leave().unwrap();
    }

    #[test]
    fn a_connection_that_did_not_arrive_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let parent = Parent::start();
        parent.dial(3, listener.local_addr().unwrap().port());
        drop(parent.hear());
        parent.say(&json!({ "cmd": "NODE_HANDLE_NACK" }));
        assert_eq!(parent.hear().0, json!({ "id": 3, "error": "the connection did not reach the daemon" }));
        parent.leave().unwrap();
    }

    #[test]
    fn what_is_no_order_ends_it() {
        let parent = Parent::start();
        parent.say(&json!({ "id": "one" }));
        assert!(parent.serving.join().unwrap().is_err());
    }
}
