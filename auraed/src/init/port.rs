//! A virtio-serial port as a connection: found by its name, opened once, never closed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tonic::transport::server::Connected;

use crate::sys::{fd, guest};

const PORTS: &str = "/sys/class/virtio-ports";
/// How long the kernel may take to find the device, and the host to open its end.
const APPEARANCE_LIMIT: Duration = Duration::from_secs(30);
/// sysfs tells nobody of what appears in it.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Reads and writes of a port whose other end was open when it was registered.
#[derive(Debug)]
pub struct Port {
    port: AsyncFd<OwnedFd>,
    /// Dropped with the connection.
    _alive: oneshot::Sender<()>,
}

/// Resolves, with an error, when the port was dropped.
pub type Gone = oneshot::Receiver<()>;

impl Port {
    /// Opens the port of this name and waits until the host has opened its end.
    pub async fn open(name: &str) -> io::Result<(Self, Gone)> {
        let deadline = Instant::now() + APPEARANCE_LIMIT;
        let path = loop {
            match find(name)? {
                Some(path) => break path,
                None => wait(deadline, || format!("no virtio port is named {name}")).await?,
            }
        };
        let opened: OwnedFd = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?.into();
        // Not by epoll: the runtime takes "hung up" for the end, and never forgets it.
        while guest::is_hung_up(opened.as_fd())? {
            wait(deadline, || format!("the host has not opened the port {name}")).await?;
        }
        let (alive, gone) = oneshot::channel();
        Ok((Self { port: fd::register(opened)?, _alive: alive }, gone))
    }
}

async fn wait(deadline: Instant, problem: impl FnOnce() -> String) -> io::Result<()> {
    if Instant::now() >= deadline {
        return Err(io::Error::new(io::ErrorKind::TimedOut, problem()));
    }
    sleep(LOOK_AGAIN).await;
    Ok(())
}

/// The device node of a port, as soon as its driver knows its name.
pub fn find(name: &str) -> io::Result<Option<PathBuf>> {
    let ports = match fs::read_dir(PORTS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.port.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            // Nothing read, without an error: the host has closed its end.
            if let Ok(result) = ready.try_io(|port| fd::read(port.as_fd(), unfilled)) {
                return Poll::Ready(result.map(|count| buffer.advance(count)));
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.port.poll_write_ready(context))?;
            match ready.try_io(|port| fd::write(port.as_fd(), bytes)) {
                Ok(result) => return Poll::Ready(result),
                // "Try again" is also the answer when nobody reads any more.
                Err(_) if guest::is_hung_up(self.port.as_fd())? => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Connected for Port {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
