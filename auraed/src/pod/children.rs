//! The only waiter on children: every exit is turned into data and handed to whoever claimed the process.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::io::timestamp::now_ns;
use crate::sys::process::{self, PidFd};

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// Its code; 128 + n when signal n ended it.
    pub code: i32,
    pub at_ns: i64,
}

/// The table of claims. Cheap to clone.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    claimed: HashMap<i32, oneshot::Sender<Exited>>,
    /// Exits nobody claimed while somebody was expecting an orphan: it may have ended before its number was known.
    unclaimed: HashMap<i32, Exited>,
    expecting: usize,
}

/// A started process.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    /// `None` when it had ended before it was adopted.
    pub pidfd: Option<PidFd>,
    pub exited: oneshot::Receiver<Exited>,
}

impl Children {
    /// Starts the task that waits. Call once, before any process is started.
    pub fn start() -> io::Result<Self> {
        let children = Self::default();
        let mut ended = signal(SignalKind::child())?;
        let table = children.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                table.reap();
            }
        });
        Ok(children)
    }

    /// Starts a process and claims it.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // Under the lock: the process cannot be waited for before it is claimed.
        let mut table = self.lock();
        let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        Self::claim(&mut table, pid)
    }

    /// Says that an orphan is about to become ours: exits are kept for `adopt` as long as the returned guard lives.
    pub fn expect_orphan(&self) -> OrphanExpected {
        self.lock().expecting += 1;
        OrphanExpected(self.clone())
    }

    /// Claims a process that was orphaned to us, also when it has ended since `expect_orphan`.
    pub fn adopt(&self, pid: i32) -> io::Result<Child> {
        let mut table = self.lock();
        if let Some(exit) = table.unclaimed.remove(&pid) {
            let (sender, exited) = oneshot::channel();
            // The receiver is here.
            let _ = sender.send(exit);
            return Ok(Child { pid, pidfd: None, exited });
        }
        Self::claim(&mut table, pid)
    }

    fn claim(table: &mut Table, pid: i32) -> io::Result<Child> {
        let pidfd = Some(PidFd::open(pid)?);
        let (sender, exited) = oneshot::channel();
        table.claimed.insert(pid, sender);
        Ok(Child { pid, pidfd, exited })
    }

    fn reap(&self) {
        let mut table = self.lock();
        while let Some(ended) = process::reap() {
            let exit = Exited { code: ended.code, at_ns: now_ns() };
            match table.claimed.remove(&ended.pid) {
                // Whoever claimed it may have lost interest.
                Some(claim) => drop(claim.send(exit)),
                None if table.expecting > 0 => drop(table.unclaimed.insert(ended.pid, exit)),
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See `Children::expect_orphan`.
pub struct OrphanExpected(Children);

impl Drop for OrphanExpected {
    fn drop(&mut self) {
        let mut table = self.0.lock();
        table.expecting -= 1;
        if table.expecting == 0 {
            table.unclaimed.clear();
        }
    }
}
