//! The per-pod supervisor.
//!
//! ```text
//!  rpc ──► Pod ──► container task (one each, owns its state) ──► OCI runtime, a process per operation
//!           │          └► pump (one each): output ──► log, attached clients
//!           │          └► journal: numbered events, views of all containers
//!           └─► supervisor task (host only, owns the sandbox): namespaces, cgroup leaf, shared memory
//!  SIGCHLD ──► children: the only waiter; exits go to whoever claimed the process
//! ```
//! `Pod` and what hangs on it serves on the host and as pid 1 of a guest alike; `supervisor`, `sandbox` and `reaper` are
//! the host's. Everything runs on one thread; other threads live for as long as a file system call may block.

pub mod children;
pub(crate) mod command;
pub mod container;
pub mod errors;
pub mod exec;
pub mod exits;
pub mod journal;
mod namespaces;
pub mod network;
pub mod oci;
mod oom;
pub mod port_forward;
pub mod processes;
pub mod reaper;
pub mod sandbox;
pub mod session;
pub mod sessions;
pub mod stage;
pub mod stats;
pub mod supervisor;
pub mod sysctl;
mod update;
pub mod usage;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub use command::main;

use crate::cgroup::Hierarchies;
use crate::cgroup::container::ContainerCgroup;
use crate::idmap::UserNamespace;
use crate::io::log_sink::Logs;
use children::Children;
use container::{Container, Reply, Request};
use errors::PodError;
use exits::Exits;
use journal::{Exit, Journal};
use oci::OciRuntime;
use oom::OomAccount;
use sessions::Sessions;

/// What every container's task uses.
pub struct Shared {
    pub children: Children,
    pub hierarchies: Hierarchies,
    pub oci: OciRuntime,
    pub journal: Journal,
    pub logs: Logs,
    pub sessions: Sessions,
    exits: Exits,
    place: Mutex<Place>,
    ooms: Mutex<OomAccount>,
    containers: Mutex<Containers>,
}

/// Where the pod is, as far as that differs from where auraed is.
#[derive(Clone, Default)]
pub struct Place {
    /// Its pinned network namespace.
    pub network: Option<PathBuf>,
    /// Its cgroup with all containers in it.
    pub cgroup: Option<ContainerCgroup>,
    /// Its user namespace.
    pub users: Option<UserNamespace>,
}

#[derive(Default)]
struct Containers {
    tasks: HashMap<String, mpsc::Sender<Request>>,
    closed: bool,
}

/// The pod as the services see it. Cheap to clone.
#[derive(Clone)]
pub struct Pod(Arc<Shared>);

impl Pod {
    /// `dir`: where exits are written, one file each.
    pub fn open(dir: &Path, children: Children, hierarchies: Hierarchies, oci: OciRuntime, logs: Logs) -> io::Result<Self> {
        let exits = Exits::open(dir)?;
        let shared = Shared {
            children,
            hierarchies,
            oci,
            journal: Journal::default(),
            logs,
            sessions: Sessions::default(),
            exits,
            place: Mutex::default(),
            ooms: Mutex::default(),
            containers: Mutex::default(),
        };
        Ok(Self(Arc::new(shared)))
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    pub fn place(&self) -> Place {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_place(&self, place: Place) {
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Asks a container that is known; `UnknownContainer` otherwise.
    pub async fn ask<T>(&self, id: &str, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, PodError> {
        let task = self.0.lock().tasks.get(id).cloned().ok_or_else(|| unknown(id))?;
        ask_task(&task, id, request).await
    }

    /// Asks a container, which begins to be known by this.
    pub async fn ask_new<T>(&self, id: &str, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, PodError> {
        let task = {
            let mut containers = self.0.lock();
            if containers.closed {
                return Err(PodError::ShuttingDown);
            }
            let tasks = &mut containers.tasks;
            tasks.entry(id.to_owned()).or_insert_with(|| Container::start(Arc::clone(&self.0), id)).clone()
        };
        ask_task(&task, id, request).await
    }

    /// Takes no new containers and returns the ids of those there are.
    pub fn close(&self) -> Vec<String> {
        let mut containers = self.0.lock();
        containers.closed = true;
        containers.tasks.keys().cloned().collect()
    }

    /// Takes containers again, after a close that did not lead to the end.
    pub fn reopen(&self) {
        self.0.lock().closed = false;
    }

    /// Deletes a container, with what it ended with when it still ran. Unknown is success.
    pub async fn delete(&self, id: &str) -> Result<Option<Exit>, PodError> {
        match self.ask(id, Request::Delete).await {
            Err(PodError::UnknownContainer { .. }) => Ok(None),
            other => other,
        }
    }
}

fn unknown(id: &str) -> PodError {
    PodError::UnknownContainer { id: id.to_owned() }
}

async fn ask_task<T>(task: &mpsc::Sender<Request>, id: &str, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, PodError> {
    let (reply, answer) = oneshot::channel();
    // A task that has ended deleted its container.
    task.send(request(reply)).await.map_err(|_| unknown(id))?;
    answer.await.map_err(|_| unknown(id))?
}

impl Shared {
    /// The pod's user namespace; `None` when that is auraed's own.
    fn users(&self) -> Option<UserNamespace> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).users.clone()
    }

    /// The account of OOM kills, with the pod's cgroup.
    fn ooms(&self) -> (MutexGuard<'_, OomAccount>, Option<ContainerCgroup>) {
        let pod = self.place.lock().unwrap_or_else(PoisonError::into_inner).cgroup.clone();
        (self.ooms.lock().unwrap_or_else(PoisonError::into_inner), pod)
    }

    /// The host's ids of a process's user: whose its streams are to be.
    fn owner_of(&self, process: &Value) -> Result<(u32, u32), PodError> {
        let id = |name: &str| process.pointer(&format!("/user/{name}")).and_then(Value::as_u64).unwrap_or(0);
        let (uid, gid) = (u32::try_from(id("uid")).unwrap_or(u32::MAX), u32::try_from(id("gid")).unwrap_or(u32::MAX));
        let on_host = self.users().map_or(Ok((uid, gid)), |users| users.on_host(uid, gid));
        on_host.map_err(|error| PodError::Invalid { field: "process.user", problem: error.to_string() })
    }

    /// A container that was deleted is no longer known.
    fn forget(&self, id: &str) {
        self.lock().tasks.remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
