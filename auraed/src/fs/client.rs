//! The server of volumes as `auraed vm` has it: started with the virtual machine, ended with it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::attach::{self, Misplaced, Placement};
use super::control::{self, Order, Report};
use super::volumes::Slot;
use crate::idmap::UserNamespace;
use crate::pod::children::{Child, Children, Exited};
pub use crate::sys::mounts::Access;
use crate::sys::process::PidFd;

/// Volumes that a pod can have at a time.
pub const MAX_VOLUMES: usize = Slot::MAX as usize;
/// Bytes of a volume's name.
pub const MAX_NAME_BYTES: usize = 200;
/// How long the server may take to close its sandbox.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Shutting down does not wait for orders to be taken one by one.
const QUEUED_ORDERS: usize = 16;

/// Why volumes cannot be shared, or are shared no more.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The server could not be started.
    #[error("start the server of volumes: {0}")]
    Start(#[source] io::Error),
    /// It is no more; the guest gets errors from every volume.
    #[error("the server of volumes has ended: {0}")]
    Ended(String),
    /// A name that cannot be one.
    #[error("volume name {0:?} must be 1 to {MAX_NAME_BYTES} lower-case letters, digits and '-'")]
    Name(String),
    /// The name is in use.
    #[error("volume {name}: {path} cannot be shared as it, {other} is: unshare that first")]
    Taken {
        /// Whose name.
        name: String,
        /// What was to be shared.
        path: PathBuf,
        /// What is shared.
        other: PathBuf,
    },
    /// Too many.
    #[error("volume {name}: {path} cannot be shared, a pod has {MAX_VOLUMES} volumes at most")]
    Full {
        /// The one too many.
        name: String,
        /// Its source.
        path: PathBuf,
    },
    /// The source cannot be used.
    #[error("volume {name}: share {path}: {source}")]
    Share {
        /// As the guest would have seen it.
        name: String,
        /// On the host.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A volume is not served any more, but its mount is still there.
    #[error("unmount volumes {names:?}: {source}")]
    Unshare {
        /// Which.
        names: Vec<String>,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A file or directory of the host for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Lower-case letters, digits and '-'. In the guest `/run/aurae/volumes/NAME`.
    pub name: String,
    /// Absolute, without symbolic links.
    pub host_path: PathBuf,
    pub access: Access,
    /// The owners of its files become those of the pod's user namespace.
    pub mapped: bool,
}

enum Request {
    Share(Vec<Share>, oneshot::Sender<Result<(), FsError>>),
    Unshare(Vec<String>, oneshot::Sender<Result<(), FsError>>),
    Stop(oneshot::Sender<()>),
}

/// A running server. It is killed when the last of this is dropped. Cheap to clone.
#[derive(Clone)]
pub struct FsServer {
    commands: mpsc::Sender<Request>,
    ended: watch::Receiver<Option<String>>,
    pid: i32,
}

impl FsServer {
    /// Starts `binary fs` and waits until its sandbox is closed. `port` is the stream to the guest's port `aurae.volumes`, `users` the pod's
    /// user namespace.
    pub async fn start(binary: &Path, children: &Children, port: OwnedFd, users: Option<UserNamespace>) -> Result<Self, FsError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(FsError::Start)?;
        ours.set_nonblocking(true).map_err(FsError::Start)?;
        let (reports, orders) = UnixStream::from_std(ours).map_err(FsError::Start)?.into_split();
        let mut command = Command::new(binary);
        command.arg("fs").stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(port));
        let child = children.spawn(&mut command).map_err(FsError::Start)?;
        let pid = child.pid;
        // Our copies of its ends: with them open, its end would never be seen.
        drop(command);
        let mut server = Server::new(child, BufReader::new(reports), orders, users)?;
        match tokio::time::timeout(START_LIMIT, server.report()).await {
            Ok(Ok(Report::Ready)) => {}
            Ok(Ok(report)) => return Err(FsError::Start(io::Error::other(format!("it said {report:?}")))),
            Ok(Err(reason)) => return Err(FsError::Start(io::Error::other(reason))),
            Err(_) => return Err(FsError::Start(io::ErrorKind::TimedOut.into())),
        }
        let (commands, queue) = mpsc::channel(QUEUED_ORDERS);
        let (announce, ended) = watch::channel(None);
        tokio::spawn(server.run(queue, announce));
        Ok(Self { commands, ended, pid })
    }

    /// Its process, another's after it has ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Shares all or none; what is shared already in the same way stays. When this returns the guest can use them.
    pub async fn share(&self, shares: Vec<Share>) -> Result<(), FsError> {
        self.ask(|reply| Request::Share(shares, reply)).await
    }

    /// Takes volumes away: when this returns, the guest reaches nothing below them any more and no mount or open file of them is left.
    /// Unknown names are success, and so is a server that has ended. Takes as long as a request that the host's storage is just serving.
    pub async fn unshare(&self, names: Vec<String>) -> Result<(), FsError> {
        match self.ask(|reply| Request::Unshare(names, reply)).await {
            Err(FsError::Ended(_)) => Ok(()),
            other => other,
        }
    }

    /// Ends it and waits until it is gone, with every mount it had.
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        // Otherwise it has ended.
        if self.commands.send(Request::Stop(reply)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Waits until it has ended and says why.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "it was stopped".to_owned())
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), FsError>>) -> Request) -> Result<(), FsError> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(FsError::Ended(self.ended().await));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(FsError::Ended(self.ended().await)),
        }
    }
}

/// The one task that speaks to the process.
struct Server {
    process: Arc<PidFd>,
    exited: oneshot::Receiver<Exited>,
    /// Once it has, and that was asked for.
    exit_code: Option<i32>,
    reports: BufReader<OwnedReadHalf>,
    /// What was read of a report: reading may be given up in the middle.
    line: Vec<u8>,
    orders: OwnedWriteHalf,
    users: Option<UserNamespace>,
    shared: BTreeMap<Slot, Share>,
    newest: Slot,
}

impl Server {
    fn new(child: Child, reports: BufReader<OwnedReadHalf>, orders: OwnedWriteHalf, users: Option<UserNamespace>) -> Result<Self, FsError> {
        let process = child.pidfd.ok_or_else(|| FsError::Start(io::ErrorKind::NotFound.into()))?;
        let (line, shared) = (Vec::new(), BTreeMap::new());
        Ok(Self { process: Arc::new(process), exited: child.exited, exit_code: None, reports, line, orders, users, shared, newest: 0 })
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Request>, announce: watch::Sender<Option<String>>) {
        let mut stopped = None;
        let reason = loop {
            let command = tokio::select! {
                command = queue.recv() => command,
                report = self.report() => break match report {
                    Ok(report) => format!("it said {report:?} unasked"),
                    Err(reason) => reason,
                },
            };
            let outcome = match command {
                Some(Request::Share(shares, reply)) => respond(self.share(shares).await, reply),
                Some(Request::Unshare(names, reply)) => respond(self.unshare(&names).await, reply),
                Some(Request::Stop(reply)) => {
                    stopped = Some(reply);
                    Err("it was stopped".to_owned())
                }
                None => Err("nobody needs it any more".to_owned()),
            };
            if let Err(reason) = outcome {
                break reason;
            }
        };
        queue.close();
        self.end().await;
        // Nobody may be interested.
        let _ = announce.send(Some(reason));
        stopped.map(|reply| reply.send(()));
    }

    /// Every mount of its namespace goes with the process.
    async fn end(&mut self) {
        // It may have ended.
        let _ = self.process.signal(libc::SIGKILL);
        self.exit_code().await;
    }

    /// Waits for its end.
    async fn exit_code(&mut self) -> i32 {
        if let Some(code) = self.exit_code {
            return code;
        }
        // Nobody waits for children any more only when the whole runtime ends.
        let code = (&mut self.exited).await.map_or(-1, |exited| exited.code);
        *self.exit_code.insert(code)
    }

    /// The next report that is not the last; the reason when there is none. May be dropped at any time.
    async fn report(&mut self) -> Result<Report, String> {
        let read = self.reports.read_until(b'\n', &mut self.line).await;
        match read.map(|_| serde_json::from_slice(&self.line)) {
            Ok(Ok(Report::Ended { reason })) => Err(reason),
            Ok(Ok(report)) => {
                self.line.clear();
                Ok(report)
            }
            Ok(Err(_)) if self.line.is_empty() => Err(format!("it ended with {}", self.exit_code().await)),
            Ok(Err(error)) => Err(format!("its report was not understood: {error}")),
            Err(error) => Err(format!("its reports cannot be read: {error}")),
        }
    }

    /// The outer error is the reason why the server is of no use any more.
    async fn order(&mut self, order: &Order) -> Result<io::Result<()>, String> {
        // When it has closed its end it has said why.
        let _ = self.orders.write_all(&control::line(order)).await;
        match self.report().await? {
            Report::Done => Ok(Ok(())),
            Report::Failed { reason } => Ok(Err(io::Error::other(reason))),
            other => Err(format!("it answered {other:?}")),
        }
    }

    async fn share(&mut self, shares: Vec<Share>) -> Result<Result<(), FsError>, String> {
        let placed = match self.plan(shares) {
            Ok(placed) => placed,
            Err(error) => return Ok(Err(error)),
        };
        if placed.is_empty() {
            return Ok(Ok(()));
        }
        let failed = |slot: Slot, source: io::Error, placed: &BTreeMap<Slot, Share>| {
            let share = placed.get(&slot).cloned().unwrap_or_else(|| unnamed(slot));
            FsError::Share { name: share.name, path: share.host_path, source }
        };
        let placements = placed.iter().map(|(&slot, share)| {
            let users = self.users.clone().filter(|_| share.mapped);
            Placement { slot, source: share.host_path.clone(), access: share.access, users }
        });
        if let Err(Misplaced { slot, error }) = attach::attach(self.process.clone(), placements.collect()).await {
            return Ok(Err(failed(slot, error, &placed)));
        }
        for (slot, share) in &placed {
            if let Err(error) = self.order(&Order::Add { slot: *slot, name: share.name.clone() }).await? {
                let slots: Vec<_> = placed.keys().copied().collect();
                // What undoing says is less than what went wrong; a mount that stays goes with the server.
                let _ = self.clear(slots).await?;
                return Ok(Err(failed(*slot, error, &placed)));
            }
        }
        self.shared.extend(placed);
        Ok(Ok(()))
    }

    /// A slot for each that is not shared yet.
    fn plan(&mut self, shares: Vec<Share>) -> Result<BTreeMap<Slot, Share>, FsError> {
        let mut placed: BTreeMap<Slot, Share> = BTreeMap::new();
        for share in shares {
            check_name(&share.name)?;
            if share.mapped && self.users.is_none() {
                let source = io::Error::new(io::ErrorKind::Unsupported, "the pod has no user namespace to map its ids with");
                return Err(FsError::Share { name: share.name, path: share.host_path, source });
            }
            match self.shared.values().chain(placed.values()).find(|other| other.name == share.name) {
                Some(other) if *other == share => continue,
                Some(other) => {
                    let other = other.host_path.clone();
                    return Err(FsError::Taken { name: share.name, path: share.host_path, other });
                }
                None => {}
            }
            let slots = (1..=Slot::MAX).map(|distance| self.newest.wrapping_add(distance));
            let Some(slot) = slots.into_iter().find(|slot| *slot != 0 && !self.shared.contains_key(slot) && !placed.contains_key(slot))
            else {
                return Err(FsError::Full { name: share.name, path: share.host_path });
            };
            // The slot unused for the longest: the guest has forgotten what it held.
            self.newest = slot;
            placed.insert(slot, share);
        }
        Ok(placed)
    }

    async fn unshare(&mut self, names: &[String]) -> Result<Result<(), FsError>, String> {
        let slots: Vec<_> = self.shared.iter().filter(|(_, share)| names.contains(&share.name)).map(|(slot, _)| *slot).collect();
        if slots.is_empty() {
            return Ok(Ok(()));
        }
        Ok(match self.clear(slots.clone()).await? {
            Ok(()) => {
                self.shared.retain(|slot, _| !slots.contains(slot));
                Ok(())
            }
            Err(source) => Err(FsError::Unshare { names: names.to_vec(), source }),
        })
    }

    /// First the descriptors, then the mounts: a mount that is in use would only leave the namespace.
    async fn clear(&mut self, slots: Vec<Slot>) -> Result<io::Result<()>, String> {
        let dropped = self.order(&Order::Remove { slots: slots.clone() }).await?;
        let detached = attach::detach(self.process.clone(), slots).await;
        Ok(dropped.and(detached))
    }
}

fn respond(outcome: Result<Result<(), FsError>, String>, reply: oneshot::Sender<Result<(), FsError>>) -> Result<(), String> {
    // Whoever asked may have lost patience.
    match outcome {
        Ok(result) => drop(reply.send(result)),
        Err(reason) => {
            let _ = reply.send(Err(FsError::Ended(reason.clone())));
            return Err(reason);
        }
    }
    Ok(())
}

fn unnamed(slot: Slot) -> Share {
    Share { name: format!("of slot {slot}"), host_path: PathBuf::new(), access: Access::ReadOnly, mapped: false }
}

fn check_name(name: &str) -> Result<(), FsError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(FsError::Name(name.to_owned())),
    }
}
