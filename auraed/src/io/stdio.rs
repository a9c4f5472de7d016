//! The ends of a process's standard streams: what the process gets and what stays with us.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use super::stdin::Stdin;
use crate::sys::fd;

/// A descriptor read or written without blocking the thread.
pub struct AsyncStream(AsyncFd<OwnedFd>);

impl AsyncStream {
    pub fn new(owned: OwnedFd) -> io::Result<Self> {
        fd::set_nonblocking(owned.as_fd())?;
        Ok(Self(fd::register(owned)?))
    }

    /// Resolves when a read would not block. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// What can be read now: `None` when that is nothing, `Some(0)` at the end. A terminal whose last slave closed is at its end.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.try_io(tokio::io::Interest::READABLE, |inner| fd::read(inner.as_fd(), buffer)) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Writes everything, waiting while the reader is slow.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.async_io(tokio::io::Interest::WRITABLE, |inner| fd::write(inner.as_fd(), bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Our ends of a process's streams.
pub enum Streams {
    Pipes {
        stdin: Option<AsyncStream>,
        stdout: AsyncStream,
        stderr: AsyncStream,
    },
    /// The master of the process's terminal.
    Terminal(Arc<AsyncStream>),
}

/// The three descriptors a process is started with.
pub struct ChildStdio {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl ChildStdio {
    /// All three at /dev/null.
    pub fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

/// Pipes for stdout and stderr, and for stdin when it is kept, else /dev/null. They belong to `owner` (uid, gid), who can open them anew by
/// such names as /dev/stdout.
pub fn pipes(keep_stdin: bool, owner: (u32, u32)) -> io::Result<(Streams, ChildStdio)> {
    let own = |end: &OwnedFd| std::os::unix::fs::fchown(end, Some(owner.0), Some(owner.1));
    let (stdout, child_stdout) = fd::pipe()?;
    let (stderr, child_stderr) = fd::pipe()?;
    own(&child_stdout).and_then(|()| own(&child_stderr))?;
    let (stdin, child_stdin) = if keep_stdin {
        let (child, ours) = fd::pipe()?;
        own(&child)?;
        (Some(AsyncStream::new(ours)?), Stdio::from(child))
    } else {
        (None, Stdio::from(dev_null()?))
    };
    let streams = Streams::Pipes { stdin, stdout: AsyncStream::new(stdout)?, stderr: AsyncStream::new(stderr)? };
    Ok((streams, ChildStdio { stdin: child_stdin, stdout: Stdio::from(child_stdout), stderr: Stdio::from(child_stderr) }))
}

fn dev_null() -> io::Result<File> {
    OpenOptions::new().read(true).open("/dev/null")
}

impl Streams {
    /// The master, when the process has a terminal.
    pub fn terminal(&self) -> Option<Arc<AsyncStream>> {
        match self {
            Self::Terminal(master) => Some(Arc::clone(master)),
            Self::Pipes { .. } => None,
        }
    }

    /// What clients write to; `None` when the process has /dev/null. A pipe's end moves out: the second call finds none.
    pub fn take_stdin(&mut self) -> Option<Stdin> {
        match self {
            Self::Terminal(master) => Some(Stdin::terminal(Arc::clone(master))),
            Self::Pipes { stdin, .. } => stdin.take().map(Stdin::pipe),
        }
    }
}

/// Makes a terminal the user's, who can then open it anew by its name.
pub fn give_terminal(master: &AsyncStream, uid: u32) -> io::Result<()> {
    use rustix::pty::OpenptFlags;
    let terminal = rustix::pty::ioctl_tiocgptpeer(master.as_fd(), OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    std::os::unix::fs::fchown(terminal, Some(uid), None)
}

/// Sets a terminal's window size; zero in either direction is ignored, as CRI clients send it for "unknown".
pub fn resize(master: &AsyncStream, width: u16, height: u16) -> io::Result<()> {
    if width == 0 || height == 0 {
        return Ok(());
    }
    fd::set_window_size(master.as_fd().as_raw_fd(), width, height)
}
