//! The task that owns the VM: its start, what is done to it while it runs, its end.
//!
//! ```text
//!  NotStarted ──StartVm──► Running ──QEMU ends, or is killed──► Exited
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::errors::VmError;
use super::events::Events;
use super::launch::{self, Launched};
use super::layers;
use super::logs::Logs;
use super::network::{self, Interface};
use super::relay::{self, Link, Relay};
use super::scratch;
use super::spec::{VmSpec, check_layer};
use super::tail::Tail;
use super::vmm::Plan;
use crate::cgroup::Hierarchies;
use crate::cgroup::container::ContainerCgroup;
use crate::cgroup::group::Group;
use crate::fs::client::{FsError, FsServer, Share};
use crate::io::timestamp::now_ns;
use crate::pod::Place;
use crate::pod::children::{Child, Children, Exited};
use crate::pod::errors::PodError;
use crate::pod::journal::{Exit, Journal};
use crate::pod::supervisor::Tenant;

const CONSOLE_BYTES: usize = 64 * 1024;
const MESSAGES_BYTES: usize = 8 * 1024;
/// What QEMU and the guest said last is still read after QEMU's end, for so long.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// What a container ends with whose VM was killed because the pod shuts down.
const KILLED: i32 = 128 + nix::libc::SIGKILL;
const MAX_LAYERS: usize = 256;
/// How long after its ports QEMU may be gone itself.
const OWN_END_LIMIT: Duration = Duration::from_millis(500);

/// How the VM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    NotStarted,
    Running {
        started_at_ns: i64,
    },
    Exited {
        started_at_ns: i64,
        exit: Exit,
    },
}

type Reply<T> = oneshot::Sender<Result<T, VmError>>;

enum Request {
    Settle(Box<Place>),
    Start(Box<VmSpec>, Reply<i32>),
    Attach(Reply<Interface>),
    Volumes(Reply<FsServer>),
    Expose {
        name: String,
        host_path: PathBuf,
        reply: Reply<()>,
    },
    Stop(Reply<Vec<(String, Exit)>>),
    /// The guest can never be spoken to.
    Broken(String),
}

/// The VM as the services see it. Cheap to clone.
#[derive(Clone)]
pub struct Vm {
    requests: mpsc::UnboundedSender<Request>,
    pub relay: Relay,
    pub logs: Logs,
    pub events: Events,
    pub console: Tail,
    pub messages: Tail,
    state: Arc<Mutex<State>>,
}

impl Vm {
    /// `dir`: where the root is anchored; `binary` is our own.
    pub fn start(dir: &Path, events: Events, children: Children, hierarchies: Hierarchies, binary: PathBuf) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let vm = Self {
            requests,
            relay: Relay::default(),
            logs: Logs::default(),
            events,
            console: Tail::new(CONSOLE_BYTES),
            messages: Tail::new(MESSAGES_BYTES),
            state: Arc::default(),
        };
        let task = Task { vm: vm.clone(), anchor: dir.join("root"), children, hierarchies, binary, place: None, life: Life::NotStarted };
        tokio::spawn(task.run(receiver));
        vm
    }

    pub fn journal(&self) -> &Journal {
        self.events.journal()
    }

    pub fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// QEMU's process id. The identical second call answers like the first.
    pub async fn start_vm(&self, spec: VmSpec) -> Result<i32, VmError> {
        spec.check()?;
        self.ask(|reply| Request::Start(Box::new(spec), reply)).await
    }

    pub async fn attach_network(&self) -> Result<Interface, VmError> {
        self.ask(Request::Attach).await
    }

    pub async fn expose_layer(&self, name: String, host_path: PathBuf) -> Result<(), VmError> {
        check_layer(&name, &host_path)?;
        self.ask(|reply| Request::Expose { name, host_path, reply }).await
    }

    /// Shares all or none with the guest.
    pub async fn share(&self, volumes: Vec<Share>) -> Result<(), VmError> {
        Ok(self.ask(Request::Volumes).await?.share(volumes).await?)
    }

    /// Success also when the VM, and with it every share, is gone.
    pub async fn unshare(&self, names: Vec<String>) -> Result<(), VmError> {
        match self.ask(Request::Volumes).await {
            Ok(server) => Ok(server.unshare(names).await?),
            Err(VmError::NotStarted | VmError::Ended { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, VmError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| VmError::ShuttingDown)?;
        answer.await.map_err(|_| VmError::ShuttingDown)?
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Tenant for Vm {
    fn settle(&mut self, place: Place) {
        // The task lives as long as we do.
        let _ = self.requests.send(Request::Settle(Box::new(place)));
    }

    async fn evict(&mut self) -> Result<Vec<(String, Exit)>, PodError> {
        let stopped = self.ask(Request::Stop).await;
        stopped.map_err(|error| PodError::Io { action: "stop the VM", source: std::io::Error::other(error) })
    }

    fn finish(&mut self) {
        self.journal().close();
    }
}

/// What the task holds of the VM's life.
enum Life {
    NotStarted,
    Running(Box<Running>),
    Exited { spec: Box<VmSpec>, pid: i32 },
}

struct Running {
    spec: VmSpec,
    child: Child,
    started_at_ns: i64,
    /// Of its own, when it has one.
    group: Option<Group>,
    counters: ContainerCgroup,
    /// OOM kills before it was started.
    oom_kills_before: u64,
    interface: Option<Interface>,
    layers: BTreeMap<String, PathBuf>,
    /// What hears QEMU and the guest's console, until their descriptors are closed.
    listeners: Vec<JoinHandle<()>>,
    /// What takes the guest's events and records, until its connection is closed.
    followers: Vec<JoinHandle<()>>,
    volumes: Volumes,
}

/// Who serves the guest's port of volumes. Nobody until the first one is shared: many a pod has none.
enum Volumes {
    /// Kept open, so that QEMU sees a host there.
    Unserved(OwnedFd),
    Served(FsServer),
    /// Its server could not be started, which cannot be tried again on the same stream.
    Failed(String),
}

struct Task {
    vm: Vm,
    anchor: PathBuf,
    children: Children,
    hierarchies: Hierarchies,
    binary: PathBuf,
    place: Option<Place>,
    life: Life,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                exited = self.exited() => drop(self.end(exited, None).await),
            }
        }
    }

    /// Waits for the end of a VM that runs.
    fn exited(&mut self) -> impl Future<Output = Exited> + '_ {
        let life = &mut self.life;
        async move {
            match life {
                Life::Running(running) => waited(&mut running.child).await,
                _ => std::future::pending().await,
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        // Whoever asked may have lost patience.
        match request {
            Request::Settle(place) => self.place = Some(*place),
            Request::Start(spec, reply) => drop(reply.send(self.start(*spec).await)),
            Request::Attach(reply) => drop(reply.send(self.attach().await)),
            Request::Volumes(reply) => drop(reply.send(self.volumes().await)),
            Request::Expose { name, host_path, reply } => drop(reply.send(self.expose(name, host_path).await)),
            Request::Stop(reply) => drop(reply.send(self.stop().await)),
            Request::Broken(reason) => self.broken(&reason).await,
        }
    }

    async fn start(&mut self, spec: VmSpec) -> Result<i32, VmError> {
        match &self.life {
            Life::Running(running) if running.spec == spec => return Ok(running.child.pid),
            Life::Exited { spec: known, pid } if **known == spec => return Ok(*pid),
            Life::Running(_) | Life::Exited { .. } => return Err(VmError::OtherVm),
            Life::NotStarted => {}
        }
        let place = self.place.clone().ok_or(VmError::NoSandbox)?;
        let network = place.network.clone().ok_or(VmError::NoSandbox)?;
        let group = if spec.cgroup.is_empty() { None } else { Some(Group::make(&self.hierarchies, &spec.cgroup)?) };
        match self.launch(&spec, network, group.as_ref()).await {
            Ok(launched) => {
                let pid = launched.child.pid;
                let counters = self.counters(group.as_ref())?;
                self.life = Life::Running(Box::new(self.running(spec, launched, group, counters)));
                Ok(pid)
            }
            Err(error) => {
                if let Some(group) = group {
                    group.remove();
                }
                remove_scratch(&spec);
                Err(error)
            }
        }
    }

    /// Where the OOM killer's victims are counted: in its own cgroup, or in ours that it shares.
    fn counters(&self, group: Option<&Group>) -> Result<ContainerCgroup, VmError> {
        match group {
            Some(group) => Ok(group.counters()),
            None => Ok(ContainerCgroup::at(self.hierarchies.directories_of(std::process::id())?)),
        }
    }

    async fn launch(&self, spec: &VmSpec, network: PathBuf, group: Option<&Group>) -> Result<Launched, VmError> {
        let directory = |path: &Path, mode| std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        directory(&self.anchor, 0o700).map_err(VmError::io(format!("make {}", self.anchor.display())))?;
        directory(&spec.run_path, 0o700)
            .and_then(|()| chown(&spec.run_path, Some(spec.uid), Some(spec.gid)))
            .map_err(VmError::io(format!("make {}", spec.run_path.display())))?;
        if let Some(disk) = spec.scratch.clone() {
            let (uid, gid, name) = (spec.uid, spec.gid, disk.path.display().to_string());
            let made = tokio::task::spawn_blocking(move || scratch::make(&disk.template, &disk.path, uid, gid)).await;
            made.map_err(std::io::Error::other).flatten().map_err(VmError::io(format!("make the scratch disk {name}")))?;
        }
        let plan = Plan {
            parent: std::process::id().cast_signed(),
            program: spec.program.clone(),
            args: spec.args.clone(),
            cgroups: group.iter().flat_map(|group| group.directories()).map(Path::to_owned).collect(),
            network,
            anchor: self.anchor.clone(),
            files: spec.files.iter().map(|file| (file.host_path.clone(), file.path.clone())).collect(),
            run_path: spec.run_path.clone(),
            scratch: spec.scratch.as_ref().map(|disk| disk.path.clone()),
            kvm: spec.kvm,
            uid: spec.uid,
            gid: spec.gid,
        };
        let saved_state = spec.saved_state.as_deref().map(open_state).transpose()?;
        launch::launch(&plan, saved_state, &self.children, &self.binary).await
    }

    /// Everything that follows a VM is set going.
    fn running(&self, spec: VmSpec, launched: Launched, group: Option<Group>, counters: ContainerCgroup) -> Running {
        let Launched { child, control, console, volumes, messages } = launched;
        let vm = &self.vm;
        let started_at_ns = now_ns();
        vm.set_state(State::Running { started_at_ns });
        vm.relay.set(Link::Booting);
        let listeners = vec![tokio::spawn(vm.console.clone().follow(console)), tokio::spawn(vm.messages.clone().follow(messages))];
        let followers = vec![
            tokio::spawn(connect(vm.relay.clone(), vm.requests.clone(), control, spec.saved_state.is_some())),
            tokio::spawn(vm.events.clone().follow(vm.relay.clone())),
            tokio::spawn(vm.logs.clone().follow(vm.relay.clone())),
        ];
        tracing::info!(pid = child.pid, "QEMU runs");
        Running {
            oom_kills_before: counters.oom_kills().unwrap_or(0),
            spec,
            child,
            started_at_ns,
            group,
            counters,
            interface: None,
            layers: BTreeMap::new(),
            listeners,
            followers,
            volumes: Volumes::Unserved(volumes.into()),
        }
    }

    fn alive(&mut self) -> Result<&mut Running, VmError> {
        match &mut self.life {
            Life::Running(running) => Ok(running),
            Life::NotStarted => Err(VmError::NotStarted),
            Life::Exited { .. } => Err(VmError::Ended { reason: ended(&self.vm) }),
        }
    }

    async fn attach(&mut self) -> Result<Interface, VmError> {
        let network = self.place.as_ref().and_then(|place| place.network.clone()).ok_or(VmError::NoSandbox)?;
        let running = self.alive()?;
        if let Some(interface) = &running.interface {
            return Ok(interface.clone());
        }
        let interface = network::attach(network).await?;
        running.interface = Some(interface.clone());
        Ok(interface)
    }

    async fn expose(&mut self, name: String, host_path: PathBuf) -> Result<(), VmError> {
        let running = self.alive()?;
        match running.layers.get(&name) {
            Some(known) if *known == host_path => return Ok(()),
            Some(_) => return Err(VmError::OtherLayer { name }),
            None if running.layers.len() >= MAX_LAYERS => return Err(VmError::TooMany { what: "layers", most: MAX_LAYERS }),
            None => {}
        }
        let exposed = layers::expose(running.child.pid, host_path.clone(), name.clone()).await;
        exposed.map_err(VmError::io(format!("expose the layer {}", host_path.display())))?;
        running.layers.insert(name, host_path);
        Ok(())
    }

    async fn volumes(&mut self) -> Result<FsServer, VmError> {
        let (binary, children) = (self.binary.clone(), self.children.clone());
        let users = self.place.as_ref().and_then(|place| place.users.clone());
        let volumes = &mut self.alive()?.volumes;
        if let Volumes::Unserved(_) = volumes
            && let Volumes::Unserved(port) = mem::replace(volumes, Volumes::Failed("its start was interrupted".to_owned()))
        {
            *volumes = match FsServer::start(&binary, &children, port, users).await {
                Ok(server) => Volumes::Served(server),
                Err(error) => Volumes::Failed(error.to_string()),
            };
        }
        match volumes {
            Volumes::Served(server) => Ok(server.clone()),
            Volumes::Failed(reason) => Err(VmError::Volumes(FsError::Ended(reason.clone()))),
            Volumes::Unserved(_) => Err(VmError::NotStarted),
        }
    }

    /// The guest is lost. When that is because QEMU ends, what QEMU says of it is the reason.
    async fn broken(&mut self, reason: &str) {
        let Life::Running(running) = &mut self.life else { return };
        match tokio::time::timeout(OWN_END_LIMIT, waited(&mut running.child)).await {
            Ok(exited) => drop(self.end(exited, None).await),
            Err(_) => self.give_up(reason),
        }
    }

    /// Kills QEMU, which ends the VM in the ordinary way.
    fn give_up(&mut self, reason: &str) {
        if let Life::Running(running) = &mut self.life {
            tracing::error!(reason, "the VM is given up");
            self.vm.messages.push(format!("auraed: {reason}\n").as_bytes());
            kill(&running.child);
        }
    }

    async fn stop(&mut self) -> Result<Vec<(String, Exit)>, VmError> {
        let Life::Running(running) = &mut self.life else {
            self.vm.logs.close_all();
            return Ok(Vec::new());
        };
        kill(&running.child);
        let exited = waited(&mut running.child).await;
        Ok(self.end(exited, Some(KILLED)).await)
    }

    /// QEMU has ended. `code` is what containers end with that still ran; by itself, it is the VM that they lost.
    async fn end(&mut self, exited: Exited, code: Option<i32>) -> Vec<(String, Exit)> {
        let Life::Running(running) = mem::replace(&mut self.life, Life::NotStarted) else { return Vec::new() };
        let oom_killed = running.counters.oom_kills().is_some_and(|kills| kills > running.oom_kills_before);
        // Closed by QEMU's end: its last words are the reason.
        finish(running.listeners).await;
        let exit = Exit { code: exited.code, oom_killed, finished_at_ns: exited.at_ns };
        self.vm.set_state(State::Exited { started_at_ns: running.started_at_ns, exit });
        let reason = ended(&self.vm);
        tracing::info!(code = exited.code, oom_killed, reason, "QEMU has ended");
        self.vm.relay.set(Link::Ended(reason));
        // What QEMU held of what the guest had said comes before the end of its containers.
        finish(running.followers).await;
        // Of a VM that ended by itself nobody saw how a container did: that is for the daemon to say.
        let ended = code.map(|code| self.vm.events.end_all(code, oom_killed)).unwrap_or_default();
        self.vm.logs.close_all();
        if let Some(group) = running.group {
            group.remove();
        }
        remove_scratch(&running.spec);
        // Whoever follows the events comes to ask why they end.
        self.vm.journal().close();
        self.life = Life::Exited { spec: Box::new(running.spec), pid: running.child.pid };
        ended
    }
}

fn open_state(path: &Path) -> Result<OwnedFd, VmError> {
    let opened = std::fs::File::open(path).map_err(VmError::io(format!("open the saved state {}", path.display())))?;
    Ok(opened.into())
}

/// Waits for tasks that end with QEMU, but not for ever.
async fn finish(tasks: Vec<JoinHandle<()>>) {
    let deadline = tokio::time::Instant::now() + DRAIN_LIMIT;
    for mut task in tasks {
        if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

fn kill(child: &Child) {
    if let Some(pidfd) = &child.pidfd
        && let Err(error) = pidfd.signal(nix::libc::SIGKILL)
    {
        tracing::error!(%error, "QEMU cannot be killed");
    }
}

async fn waited(child: &mut Child) -> Exited {
    // A sender that is gone has sent nothing only when nobody waits for processes any more.
    (&mut child.exited).await.unwrap_or_else(|_| Exited { code: KILLED, at_ns: now_ns() })
}

fn remove_scratch(spec: &VmSpec) {
    if let Some(disk) = &spec.scratch
        && let Err(error) = scratch::remove(&disk.path)
    {
        tracing::warn!(%error, path = %disk.path.display(), "the scratch disk stays");
    }
}

/// Opens the way to the guest and does its work until it ends.
async fn connect(relay: Relay, requests: mpsc::UnboundedSender<Request>, mut control: tokio::net::UnixStream, saved: bool) {
    let woken = if saved { relay::wake(&mut control).await } else { Ok(()) };
    let opened = match woken {
        Ok(()) => relay::open(control).await,
        Err(reason) => Err(reason),
    };
    let reason = match opened {
        Ok((sender, connection)) => {
            relay.set(Link::Open(sender));
            match connection.await {
                Ok(()) => "the guest closed its control port".to_owned(),
                Err(error) => format!("the connection to the guest broke: {error}"),
            }
        }
        Err(reason) => reason,
    };
    relay.set(Link::Broken(reason.clone()));
    // With QEMU's end this is how it shows; while QEMU runs, the guest is lost.
    let _ = requests.send(Request::Broken(reason));
}

/// Why the VM is no more, in one line.
fn ended(vm: &Vm) -> String {
    let code = match vm.state() {
        State::Exited { exit, .. } if exit.oom_killed => format!("{}, killed for want of memory", exit.code),
        State::Exited { exit, .. } => exit.code.to_string(),
        _ => return "the VM has ended".to_owned(),
    };
    let last = vm.messages.last_line().or_else(|| vm.console.last_line());
    format!("the VM has ended with {code}{}", last.map(|line| format!(": {line}")).unwrap_or_default())
}
