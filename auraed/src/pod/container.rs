//! One container: a task that owns its state. Others send it requests and await the answer.
//!
//! ```text
//!            Create            Start
//! PREPARED ─────────► CREATED ──────► RUNNING
//!    │                   │  └─ fails ─┐   │ first process ends
//!    │                   └────────────┴─► EXITED
//!    └──────── Delete ────────┴───────────┴──► gone
//! ```
//! EXITED is published last of all: after the rest of the container was killed, its output is in the log file and its
//! exit is on disk.

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::children::{Child, Exited};
use super::errors::PodError;
use super::journal::{Exit, Kind, Phase, View};
use super::stage::Stage;
use super::usage::CachedUsage;
use crate::cgroup::container::ContainerCgroup;
use crate::io::log_sink::LogSink;
use crate::io::pump::{Pump, PumpSubscription};
use crate::io::stdin::Stdin;
use crate::io::stdio::{self, AsyncStream, Streams};
use crate::io::terminal::ConsoleSocket;
use crate::io::timestamp::now_ns;
use crate::rootfs::{self, image};

/// How long output may still come after the container's last process was killed: somebody else may hold the pipe.
const OUTPUT_DRAIN: Duration = Duration::from_secs(1);
/// How long a killed first process may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// Exit code of a container whose start failed.
const START_FAILED: i32 = 128;

pub type Reply<T> = oneshot::Sender<Result<T, PodError>>;

/// What a container is made from.
pub struct CreateSpec {
    pub bundle_path: PathBuf,
    /// The OCI runtime specification as JSON.
    pub oci_spec: Vec<u8>,
    /// Empty: output is discarded.
    pub log_path: PathBuf,
    pub terminal: bool,
    pub stdin: bool,
    pub stdin_once: bool,
}

/// What those need who work with a live container: exec, attach, stats.
#[derive(Clone)]
pub struct Live {
    pub id: String,
    pub phase: Phase,
    pub pid: i32,
    /// `process` of the OCI specification.
    pub process: Arc<Value>,
    pub cgroup: ContainerCgroup,
    pub output: PumpSubscription,
    pub stdin: Option<Stdin>,
    pub stdin_once: bool,
    pub terminal: Option<Arc<AsyncStream>>,
    /// The overlay's upper directory and how much is in it.
    pub upper: PathBuf,
    pub usage: CachedUsage,
}

pub enum Request {
    Prepare(Box<rootfs::Request>, Reply<rootfs::Prepared>),
    MountImage(Box<image::Request>, Reply<()>),
    Create(Box<CreateSpec>, Reply<i32>),
    Start(Reply<i64>),
    Signal {
        signal: i32,
        all: bool,
        reply: Reply<()>,
    },
    Update {
        resources: Vec<u8>,
        reply: Reply<()>,
    },
    ReopenLog(Reply<()>),
    Live(Reply<Live>),
    /// Answers with how it ended when it still ran.
    Delete(Reply<Option<Exit>>),
}

enum State {
    Prepared,
    Created(Process),
    Running(Process),
    Exited,
}

struct Process {
    child: Child,
    pump: Pump,
    live: Live,
}

pub struct Container {
    shared: Arc<Shared>,
    view: View,
    state: State,
    rootfs: Option<(rootfs::Request, rootfs::Prepared)>,
    /// Where images are mounted that are its volumes.
    images: Vec<PathBuf>,
    bundle: Option<PathBuf>,
    cgroup: Option<ContainerCgroup>,
}

impl Container {
    /// Starts the task of a container nobody has prepared yet.
    pub fn start(shared: Arc<Shared>, id: &str) -> mpsc::Sender<Request> {
        let (sender, receiver) = mpsc::channel(16);
        let view = View { id: id.to_owned(), phase: Phase::Prepared, pid: 0, created_at_ns: 0, started_at_ns: 0, exit: None };
        let container = Self { shared, view, state: State::Prepared, rootfs: None, images: Vec::new(), bundle: None, cgroup: None };
        tokio::spawn(container.run(receiver));
        sender
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                exited = first_process_ended(&mut self.state) => self.exited(exited, None).await,
                request = requests.recv() => match request {
                    Some(Request::Delete(reply)) => {
                        let result = self.delete().await;
                        let gone = result.is_ok();
                        if gone {
                            self.shared.forget(&self.view.id);
                        }
                        let _ = reply.send(result);
                        if gone {
                            return;
                        }
                    }
                    Some(request) => self.serve(request).await,
                    None => return,
                },
            }
        }
    }

    /// Whoever asked may be gone: what was done stays done, and the same request again finds it.
    async fn serve(&mut self, request: Request) {
        match request {
            Request::Prepare(request, reply) => drop(reply.send(self.prepare(*request).await)),
            Request::MountImage(request, reply) => drop(reply.send(self.mount_image(*request).await)),
            Request::Create(spec, reply) => drop(reply.send(self.create(*spec).await)),
            Request::Start(reply) => drop(reply.send(self.start_process().await)),
            Request::Signal { signal, all, reply } => drop(reply.send(self.signal(signal, all).await)),
            Request::Update { resources, reply } => drop(reply.send(self.update(&resources).await)),
            Request::ReopenLog(reply) => drop(reply.send(self.reopen_log().await)),
            Request::Live(reply) => drop(reply.send(self.live())),
            Request::Delete(reply) => drop(reply.send(self.delete().await)),
        }
    }

    async fn prepare(&mut self, request: rootfs::Request) -> Result<rootfs::Prepared, PodError> {
        if let Some((_, prepared)) = &self.rootfs {
            return Ok(prepared.clone());
        }
        let work = request.clone();
        let users = self.shared.users();
        let prepared = blocking(move || rootfs::prepare(&work, users.as_ref())).await??;
        self.rootfs = Some((request, prepared.clone()));
        self.shared.journal.set(&self.view.id, Some(self.view.clone()));
        Ok(prepared)
    }

    async fn mount_image(&mut self, request: image::Request) -> Result<(), PodError> {
        if self.rootfs.is_none() || !matches!(self.state, State::Prepared) {
            return Err(self.wrong_phase("prepared"));
        }
        let users = self.shared.users();
        let path = blocking(move || image::mount(&request, users.as_ref())).await??;
        if !self.images.contains(&path) {
            self.images.push(path);
        }
        Ok(())
    }

    async fn create(&mut self, spec: CreateSpec) -> Result<i32, PodError> {
        match self.state {
            State::Prepared => {}
            State::Created(_) | State::Running(_) | State::Exited => return Err(PodError::AlreadyCreated { id: self.view.id.clone() }),
        }
        if self.rootfs.is_none() {
            return Err(self.wrong_phase("prepared"));
        }
        let mut oci_spec: Value = serde_json::from_slice(&spec.oci_spec)
            .map_err(|error| PodError::Invalid { field: "oci_spec", problem: format!("is not JSON: {error}") })?;
        // Lent until the container is created, or is not.
        let _stage = self.lend(&mut oci_spec).await?;
        let log = self.shared.logs.open(&self.view.id, &spec.log_path)?;
        self.write_bundle(&spec.bundle_path, &oci_spec)?;
        match self.run_create(&spec, &oci_spec, log).await {
            Ok(process) => {
                let pid = process.child.pid;
                self.cgroup = Some(process.live.cgroup.clone());
                let (mut ooms, pod) = self.shared.ooms();
                ooms.enter(&self.view.id, process.live.cgroup.clone(), pod.as_ref());
                drop(ooms);
                self.view = View { phase: Phase::Created, pid, created_at_ns: now_ns(), ..self.view.clone() };
                self.state = State::Created(process);
                self.shared.journal.publish(Kind::Created, self.view.clone());
                Ok(pid)
            }
            Err(error) => {
                // What the runtime left of a failed create would make the next attempt fail with "exists".
                self.delete_from_runtime().await.unwrap_or_else(|error| tracing::warn!(%error, "a failed create left something"));
                Err(error)
            }
        }
    }

    /// What a container in a user namespace cannot reach or make by itself.
    async fn lend(&self, oci_spec: &mut Value) -> Result<Option<Stage>, PodError> {
        let (Some(users), Some((request, _))) = (self.shared.users(), &self.rootfs) else { return Ok(None) };
        let path = Path::new(&request.rootfs_path).with_file_name("lent");
        let mut changed = oci_spec.take();
        let (stage, changed) = blocking(move || Stage::set(&path, &mut changed, &users).map(|stage| (stage, changed))).await??;
        *oci_spec = changed;
        Ok(Some(stage))
    }

    fn write_bundle(&mut self, path: &Path, oci_spec: &Value) -> Result<(), PodError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(PodError::io("make the bundle directory"))?;
        self.bundle = Some(path.to_owned());
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path.join("config.json"))
            .and_then(|mut file| file.write_all(oci_spec.to_string().as_bytes()))
            .map_err(PodError::io("write config.json"))
    }

    async fn run_create(&self, spec: &CreateSpec, oci_spec: &Value, log: Option<LogSink>) -> Result<Process, PodError> {
        let oci = &self.shared.oci;
        let process = oci_spec.get("process").cloned().unwrap_or_default();
        let owner = self.shared.owner_of(&process)?;
        let files = oci.files(&format!("create-{}", self.view.id));
        let bundle = (spec.bundle_path.as_path(), has_systemd_cgroup(oci_spec));
        let orphan = self.shared.children.expect_orphan();
        let mut streams = if spec.terminal {
            let console =
                ConsoleSocket::listen(oci.work_dir(), &format!("{}.tty", self.view.id)).map_err(PodError::io("make a console socket"))?;
            oci.create(&self.view.id, bundle, Some(console.address()), &files, stdio::ChildStdio::null()).await?;
            let master = console.receive().await.and_then(AsyncStream::new).map_err(PodError::io("receive the terminal"))?;
            stdio::give_terminal(&master, owner.0).map_err(PodError::io("give the terminal to its user"))?;
            Streams::Terminal(Arc::new(master))
        } else {
            let (streams, child) = stdio::pipes(spec.stdin, owner).map_err(PodError::io("make pipes"))?;
            oci.create(&self.view.id, bundle, None, &files, child).await?;
            streams
        };
        let child = self.shared.children.adopt(files.read_pid("create")?).map_err(PodError::io("adopt the container's first process"))?;
        drop(orphan);
        let cgroup = ContainerCgroup::of(&self.shared.hierarchies, child.pid.unsigned_abs())?;
        let (stdin, terminal) = (streams.take_stdin().filter(|_| spec.stdin), streams.terminal());
        let pump = Pump::start(streams, log);
        let live = Live {
            id: self.view.id.clone(),
            phase: Phase::Created,
            pid: child.pid,
            process: Arc::new(process),
            cgroup,
            output: pump.subscription(),
            stdin,
            stdin_once: spec.stdin_once,
            terminal,
            upper: self.rootfs.as_ref().map(|(request, _)| Path::new(&request.scratch_path).join("upper")).unwrap_or_default(),
            usage: CachedUsage::default(),
        };
        Ok(Process { child, pump, live })
    }

    async fn start_process(&mut self) -> Result<i64, PodError> {
        if !matches!(self.state, State::Created(_)) {
            return Err(self.wrong_phase("created"));
        }
        let files = self.shared.oci.files(&format!("start-{}", self.view.id));
        // Before the call: a short program has ended when it returns.
        let started_at_ns = now_ns();
        if let Err(error) = self.shared.oci.start(&self.view.id, &files).await {
            self.fail_start().await;
            return Err(error.into());
        }
        self.state = match std::mem::replace(&mut self.state, State::Exited) {
            State::Created(process) => State::Running(process),
            other => other,
        };
        self.view = View { phase: Phase::Running, started_at_ns, ..self.view.clone() };
        self.shared.journal.publish(Kind::Started, self.view.clone());
        Ok(started_at_ns)
    }

    async fn fail_start(&mut self) {
        match self.kill_and_wait().await {
            Ok(exited) => self.exited(exited, Some(START_FAILED)).await,
            Err(error) => tracing::error!(%error, "a container that failed to start lives"),
        }
    }

    /// The first process has ended: everything that must be true before others may know.
    async fn exited(&mut self, exited: Exited, code: Option<i32>) {
        let (State::Created(process) | State::Running(process)) = std::mem::replace(&mut self.state, State::Exited) else { return };
        let oom_killed = self.oom_killed();
        // With a pid namespace of its own the kernel has done it; what shares the pod's or the host's would live on.
        if !process.live.cgroup.kill_all().await {
            tracing::error!(container_id = %self.view.id, "processes of the container could not be killed");
        }
        process.pump.finish(OUTPUT_DRAIN).await;
        // The wall clock may have been set back meanwhile.
        let finished_at_ns = exited.at_ns.max(self.view.started_at_ns);
        let exit = Exit { code: code.unwrap_or(exited.code), oom_killed, finished_at_ns };
        self.view = View { phase: Phase::Exited, pid: 0, exit: Some(exit), ..self.view.clone() };
        if let Err(error) = self.shared.exits.write(&self.view.id, exit) {
            tracing::error!(%error, container_id = %self.view.id, "the exit could not be written");
        }
        self.shared.journal.publish(Kind::Exited, self.view.clone());
    }

    fn oom_killed(&self) -> bool {
        let (mut ooms, pod) = self.shared.ooms();
        ooms.leave(&self.view.id, pod.as_ref())
    }

    async fn signal(&mut self, signal: i32, all: bool) -> Result<(), PodError> {
        if !(1..=64).contains(&signal) {
            return Err(PodError::Invalid { field: "signal", problem: format!("{signal} is no signal: 1 to 64") });
        }
        match &self.state {
            State::Prepared => Err(self.wrong_phase("created")),
            State::Exited => Ok(()),
            State::Created(process) | State::Running(process) => {
                if all {
                    process.live.cgroup.signal_all(signal);
                    return Ok(());
                }
                match &process.child.pidfd {
                    Some(pidfd) => pidfd.signal(signal).map_err(PodError::io("signal the container's first process")),
                    None => Ok(()),
                }
            }
        }
    }

    async fn update(&mut self, resources: &[u8]) -> Result<(), PodError> {
        if !matches!(self.state, State::Created(_) | State::Running(_)) {
            return Err(self.wrong_phase("created or running"));
        }
        super::update::apply(&self.shared.oci, &self.view.id, self.cgroup.as_ref(), resources).await
    }

    async fn reopen_log(&mut self) -> Result<(), PodError> {
        match &self.state {
            State::Running(process) => Ok(process.pump.reopen_log().await?),
            State::Prepared | State::Created(_) | State::Exited => Err(self.wrong_phase("running")),
        }
    }

    fn live(&self) -> Result<Live, PodError> {
        match &self.state {
            State::Created(process) | State::Running(process) => Ok(Live { phase: self.view.phase, ..process.live.clone() }),
            State::Prepared | State::Exited => Err(self.wrong_phase("running")),
        }
    }

    async fn delete(&mut self) -> Result<Option<Exit>, PodError> {
        let mut exit = None;
        if matches!(self.state, State::Created(_) | State::Running(_)) {
            let exited = self.kill_and_wait().await?;
            self.exited(exited, None).await;
            exit = self.view.exit;
        }
        self.delete_from_runtime().await?;
        while let Some(path) = self.images.last().cloned() {
            blocking(move || image::unmount(&path)).await??;
            self.images.pop();
        }
        if let Some((request, _)) = &self.rootfs {
            let request = request.clone();
            blocking(move || rootfs::release(&request)).await??;
        }
        if let Some(bundle) = &self.bundle {
            // The directory may be the daemon's and hold more.
            let _ = fs::remove_file(bundle.join("config.json"));
            let _ = fs::remove_dir(bundle);
        }
        self.shared.exits.remove(&self.view.id);
        if self.view.phase == Phase::Prepared {
            self.shared.journal.set(&self.view.id, None);
        } else {
            self.shared.journal.publish(Kind::Deleted, self.view.clone());
        }
        Ok(exit)
    }

    async fn delete_from_runtime(&mut self) -> Result<(), PodError> {
        if self.shared.oci.knows(&self.view.id) {
            let files = self.shared.oci.files(&format!("delete-{}", self.view.id));
            self.shared.oci.delete(&self.view.id, &files).await?;
        }
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
        Ok(())
    }

    async fn kill_and_wait(&mut self) -> Result<Exited, PodError> {
        let id = self.view.id.clone();
        let (State::Created(process) | State::Running(process)) = &mut self.state else { return Err(PodError::Unkillable { id }) };
        if let Some(pidfd) = &process.child.pidfd {
            pidfd.signal(nix::libc::SIGKILL).map_err(PodError::io("kill the container's first process"))?;
        }
        process.live.cgroup.signal_all(nix::libc::SIGKILL);
        match tokio::time::timeout(KILL_LIMIT, &mut process.child.exited).await {
            Ok(Ok(exited)) => Ok(exited),
            Ok(Err(_)) | Err(_) => Err(PodError::Unkillable { id }),
        }
    }

    fn wrong_phase(&self, wanted: &'static str) -> PodError {
        let is = match self.state {
            State::Prepared if self.rootfs.is_none() => "not prepared",
            State::Prepared => "prepared",
            State::Created(_) => "created",
            State::Running(_) => "running",
            State::Exited => "exited",
        };
        PodError::WrongPhase { id: self.view.id.clone(), is, wanted }
    }
}

async fn first_process_ended(state: &mut State) -> Exited {
    match state {
        State::Created(process) | State::Running(process) => match (&mut process.child.exited).await {
            Ok(exited) => exited,
            // The reaper keeps every claim until its process has ended.
            Err(_) => Exited { code: 255, at_ns: now_ns() },
        },
        State::Prepared | State::Exited => std::future::pending().await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PodError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PodError::Io { action: "finish work in a thread", source: error.into() })
}

/// systemd's form is `slice:prefix:name`.
fn has_systemd_cgroup(oci_spec: &Value) -> bool {
    oci_spec.pointer("/linux/cgroupsPath").and_then(Value::as_str).is_some_and(|path| !path.contains('/') && path.split(':').count() == 3)
}
