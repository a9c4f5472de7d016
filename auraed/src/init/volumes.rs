//! The volumes of the pod in its guest: FUSE, answered by the host at the other end of the port `aurae.volumes`.
//!
//! Two threads carry messages between `/dev/fuse` and the port. They are threads of pid 1, which the kernel's OOM killer spares: were they
//! killed, whoever waits for a volume would wait for ever. They allocate nothing once they run, for memory may only come free by writing
//! to a volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::fs::messages::{Inbox, MAX_BYTES};

/// Below it each volume NAME: a file or directory to bind from.
pub const ROOT: &str = "/run/aurae/volumes";
const PORT: &str = "aurae.volumes";
const PORTS: &str = "/sys/class/virtio-ports";
const STACK_BYTES: usize = 64 * 1024;
/// How long the port may take to appear, and then the host to be connected to it.
const PORT_LIMIT: Duration = Duration::from_secs(10);
const PORT_INTERVAL: Duration = Duration::from_millis(5);
/// A reply has a length, an error and a number.
const REPLY_HEADER_BYTES: usize = 16;
/// As long as the longest message: few large reads cost less than many small ones on this way.
const READ_AHEAD_KIB: &str = "1024";

/// Why there are no volumes.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// The virtual machine was started without the port.
    #[error("there is no virtio port {PORT} in {PORTS}")]
    NoPort,
    /// Nobody serves volumes.
    #[error("no host is connected to the port {PORT}")]
    NoHost,
    /// The kernel refused.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> VolumesError {
    let action = action.into();
    move |source| VolumesError::Io { action, source }
}

static MOUNTED: Mutex<bool> = Mutex::new(false);

/// Mounts the volumes at [`ROOT`] when they are not yet. Blocks. When the host has stopped serving them this is success still, and every
/// use of them fails with ENOTCONN.
pub fn ensure_mounted() -> Result<(), VolumesError> {
    let mut mounted = MOUNTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*mounted {
        let port = open_port()?;
        mount_on(Path::new(ROOT), port)?;
        *mounted = true;
    }
    Ok(())
}

/// Mounts on a directory, which is made when missing, the file system that speaks at the other end of `port`, a blocking descriptor.
pub fn mount_on(target: &Path, port: OwnedFd) -> Result<(), VolumesError> {
    fs::create_dir_all(target).map_err(failed(format!("make {}", target.display())))?;
    let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(failed("open /dev/fuse"))?;
    // Users are told apart by the guest's kernel alone, by owner and mode. A device node in a volume means a device of the host: here it
    // would be another one. set-user-id programs work as in every other volume.
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fuse.as_raw_fd());
    mount(Some("volumes"), target, Some("fuse"), MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(|error| failed(format!("mount {}", target.display()))(error.into()))?;
    start(fuse, File::from(port), target.to_owned()).map_err(failed("carry messages of volumes"))?;
    if let Err(error) = raise_read_ahead(target) {
        tracing::debug!(%error, "reading ahead stays as it is");
    }
    Ok(())
}

fn open_port() -> Result<OwnedFd, VolumesError> {
    let deadline = Instant::now() + PORT_LIMIT;
    let device = retry(deadline, find_port).ok_or(VolumesError::NoPort)?;
    let path = device.display().to_string();
    let port = OpenOptions::new().read(true).write(true).open(&device).map_err(failed(format!("open {path}")))?;
    // Without a host, a read would be an end of file.
    retry(deadline, || host_is_there(&port).then_some(())).ok_or(VolumesError::NoHost)?;
    Ok(port.into())
}

fn retry<T>(deadline: Instant, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        let result = attempt();
        if result.is_some() || Instant::now() > deadline {
            return result;
        }
        thread::sleep(PORT_INTERVAL);
    }
}

fn find_port() -> Option<PathBuf> {
    fs::read_dir(PORTS).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

fn host_is_there(port: &File) -> bool {
    let mut wanted = [PollFd::new(port, PollFlags::OUT)];
    poll(&mut wanted, Some(&Timespec::default())).is_ok() && !wanted[0].revents().contains(PollFlags::HUP)
}

/// The kernel's limit for a file system without a disk is 128 KiB.
fn raise_read_ahead(target: &Path) -> io::Result<()> {
    // Without asking the file system: nobody may be serving it yet.
    let found = rustix::fs::statx(CWD, target, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    let (major, minor) = (found.stx_dev_major, found.stx_dev_minor);
    fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB)
}

fn start(fuse: File, port: File, target: PathBuf) -> io::Result<()> {
    let (requests, to_host) = (fuse.try_clone()?, port.try_clone()?);
    let carrier = |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    let buffer = vec![0; MAX_BYTES];
    carrier("volumes-out").spawn(move || {
        never_wait_for_volumes();
        if let Err(error) = carry_requests(requests, to_host, buffer) {
            tracing::error!(%error, "requests to volumes are carried no more");
        }
    })?;
    let inbox = Inbox::new(REPLY_HEADER_BYTES);
    carrier("volumes-in").spawn(move || {
        never_wait_for_volumes();
        let ended = carry_replies(&fuse, port, inbox);
        let reason = ended.err().map_or_else(|| "the host has closed the port".to_owned(), |error| error.to_string());
        tracing::error!(reason, "volumes are gone");
        // Fails whatever waits for an answer, and everything to come. Binds of volumes elsewhere are of the same file system.
        if let Err(error) = umount2(&target, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH) {
            tracing::error!(%error, "volumes cannot be given up");
        }
    })?;
    Ok(())
}

/// Memory for this thread is not to be won by writing to a volume.
fn never_wait_for_volumes() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!(%error, "no special treatment when memory is short");
    }
}

/// Until the file system is unmounted.
fn carry_requests(mut fuse: File, mut port: File, mut buffer: Vec<u8>) -> io::Result<()> {
    loop {
        match fuse.read(&mut buffer) {
            Ok(length) => port.write_all(&buffer[..length])?,
            Err(error) => match error.raw_os_error() {
                // Interrupted, or whoever asked has given up before we took the request.
                Some(libc::EINTR | libc::EAGAIN | libc::ENOENT) => {}
                Some(libc::ENODEV | libc::ECONNABORTED) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
}

/// Until the host closes the port.
fn carry_replies(mut fuse: &File, mut port: File, mut inbox: Inbox) -> io::Result<()> {
    while let Some(reply) = inbox.next(&mut port)? {
        match fuse.write(reply) {
            Ok(_) => {}
            // Nobody waits for it any more.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
