//! The pod sandbox on the host: cgroup leaf, pinned namespaces, shared memory. All or nothing.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::children::{Child, Children};
use super::namespaces;
use super::reaper::{Plan, Report};
use super::sysctl::{self, SysctlError};
use crate::cgroup::leaf::{LeafSpec, PodLeaf};
use crate::cgroup::{CgroupError, Hierarchies, Hierarchy};
use crate::helper::{self, Failure, GO};
use crate::idmap::{self, IdMapping, UserNamespace};
use crate::sys::{fd, mounts, process};

/// How long making the namespaces may take.
const MAKING_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum SandboxError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("could not {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("could not {step}: {error}")]
    Namespaces { step: String, error: String },
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Io { action: action.into(), source }
}

/// What is asked for. The same request again is answered with the same sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    pub pod_id: String,
    pub network: bool,
    pub ipc: bool,
    pub uts: bool,
    pub pid: bool,
    pub hostname: String,
    /// Sorted by key.
    pub sysctls: Vec<(String, String)>,
    pub namespaces_path: PathBuf,
    pub shm_size_bytes: u64,
    pub shm_path: PathBuf,
    pub cgroup: LeafSpec,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

/// Where the namespaces are pinned; `None` for one that is the host's.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    pub network: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub pid: Option<PathBuf>,
    pub user: Option<PathBuf>,
}

impl Pins {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.network, &self.ipc, &self.uts, &self.pid, &self.user].into_iter().flatten()
    }

    fn slot(&mut self, name: &str) -> &mut Option<PathBuf> {
        match name {
            "net" => &mut self.network,
            "ipc" => &mut self.ipc,
            "uts" => &mut self.uts,
            _ => &mut self.user,
        }
    }
}

/// A sandbox that exists.
#[derive(Debug)]
pub struct Sandbox {
    pub spec: SandboxSpec,
    pub pins: Pins,
    leaf: Option<PodLeaf>,
    pid_one: Option<PidOne>,
    shm_mounted: bool,
    made_directories: Vec<PathBuf>,
}

#[derive(Debug)]
struct PidOne {
    child: Child,
    /// Closing it ends the process.
    _life: OwnedFd,
}

impl Sandbox {
    /// Makes everything, or nothing.
    pub async fn create(spec: SandboxSpec, hierarchies: &Hierarchies, children: &Children, binary: &Path) -> Result<Self, SandboxError> {
        let sysctls = checked_sysctls(&spec)?;
        check(&spec)?;
        let leaf = PodLeaf::enter(hierarchies, &spec.cgroup)?;
        let mut sandbox =
            Self { spec, pins: Pins::default(), leaf: Some(leaf), pid_one: None, shm_mounted: false, made_directories: Vec::new() };
        match sandbox.fill(sysctls, children, binary).await {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                sandbox.destroy().await;
                Err(error)
            }
        }
    }

    /// Host pid of the pid namespace's pid 1.
    pub fn pid_one(&self) -> Option<i32> {
        self.pid_one.as_ref().map(|pid_one| pid_one.child.pid)
    }

    /// The pod's user namespace; `None` when that is the host's.
    pub fn user_namespace(&self) -> Option<UserNamespace> {
        let (uid_mappings, gid_mappings) = (self.spec.uid_mappings.clone(), self.spec.gid_mappings.clone());
        self.pins.user.clone().map(|path| UserNamespace { path, uid_mappings, gid_mappings })
    }

    /// The pod's cgroup in each hierarchy.
    pub fn cgroup_directories(&self) -> &[(Hierarchy, PathBuf)] {
        self.leaf.as_ref().map(PodLeaf::pod_directories).unwrap_or_default()
    }

    /// Takes everything away. What resists is logged.
    pub async fn destroy(mut self) {
        if let Some(pid_one) = self.pid_one.take() {
            process::send_signal(pid_one.child.pid, nix::libc::SIGKILL);
            let _ = pid_one.child.exited.await;
        }
        for pin in self.pins.all() {
            if let Err(error) = mounts::unmount_all(pin).and_then(|()| fs::remove_file(pin)) {
                tracing::warn!(%error, pin = %pin.display(), "a namespace stays pinned");
            }
        }
        if self.shm_mounted
            && let Err(error) = mounts::unmount_all(&self.spec.shm_path)
        {
            tracing::warn!(%error, "the pod's shared memory stays mounted");
        }
        for directory in self.made_directories.iter().rev() {
            // Not empty: somebody put something there, and it is theirs.
            let _ = fs::remove_dir(directory);
        }
        if let Some(leaf) = self.leaf.take() {
            leaf.leave();
        }
    }

    async fn fill(&mut self, sysctls: Vec<(PathBuf, String)>, children: &Children, binary: &Path) -> Result<(), SandboxError> {
        self.make_directory(&self.spec.namespaces_path.clone(), 0o711)?;
        let plan = Plan {
            user: self.has_user_namespace(),
            network: self.spec.network,
            ipc: self.spec.ipc,
            uts: self.spec.uts,
            pid: self.spec.pid,
            hostname: self.spec.hostname.clone(),
            sysctls,
            anchor: self.spec.namespaces_path.clone(),
        };
        let making = async {
            if plan.user || plan.pid {
                self.make_by_reaper(&plan, children, binary).await
            } else if plan.network || plan.ipc || plan.uts {
                self.make_by_thread(plan).await
            } else {
                Ok(())
            }
        };
        tokio::time::timeout(MAKING_LIMIT, making).await.unwrap_or_else(|_| Err(namespaces_error("make the namespaces", "timed out")))?;
        self.mount_shared_memory()
    }

    fn has_user_namespace(&self) -> bool {
        !self.spec.uid_mappings.is_empty()
    }

    fn make_directory(&mut self, path: &Path, mode: u32) -> Result<(), SandboxError> {
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed(format!("make the directory {}", path.display())))?;
            self.made_directories.push(path.to_owned());
        }
        Ok(())
    }

    async fn make_by_thread(&mut self, plan: Plan) -> Result<(), SandboxError> {
        let directory = self.spec.namespaces_path.clone();
        let work = move || {
            let mut pins = Pins::default();
            let made = namespaces::make(&plan).map_err(|Failure(step, error)| namespaces_error(step, error)).and_then(|()| {
                for (wanted, name) in [(plan.network, "net"), (plan.ipc, "ipc"), (plan.uts, "uts")] {
                    if wanted {
                        *pins.slot(name) = Some(pin_one(Path::new(namespaces::OF_THREAD), name, &directory)?);
                    }
                }
                Ok(())
            });
            (pins, made)
        };
        let (pins, made) = namespaces::in_thread(work).await.map_err(failed("start a thread"))?;
        // Half of them too: they are taken away with the rest.
        self.pins = pins;
        made
    }

    async fn make_by_reaper(&mut self, plan: &Plan, children: &Children, binary: &Path) -> Result<(), SandboxError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(failed("make a socket pair"))?;
        let (life_reader, life) = fd::pipe().map_err(failed("make a pipe"))?;
        let _orphan = children.expect_orphan();
        let mut command = Command::new(binary);
        command.arg("reaper").stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(life_reader));
        let maker = children.spawn(&mut command).map_err(failed("start the reaper"))?;
        // The command holds the child's ends: an early end of the child must be seen as the end of the stream.
        drop(command);
        let result = self.converse(ours, plan, &maker).await;
        if result.is_err() {
            process::send_signal(maker.pid, nix::libc::SIGKILL);
        }
        let _ = maker.exited.await;
        if let Some(pid) = result? {
            let child = children.adopt(pid).map_err(failed("adopt pid 1"))?;
            fd::write(life.as_fd(), &[GO]).map_err(failed("hand over pid 1"))?;
            self.pid_one = Some(PidOne { child, _life: life });
        }
        Ok(())
    }

    /// Answers the reaper's reports until everything is pinned; the host pid of pid 1, when there is one.
    async fn converse(&mut self, socket: StdUnixStream, plan: &Plan, maker: &Child) -> Result<Option<i32>, SandboxError> {
        socket.set_nonblocking(true).map_err(failed("prepare a socket"))?;
        let mut control = BufReader::new(UnixStream::from_std(socket).map_err(failed("prepare a socket"))?);
        let message = helper::message(plan).map_err(failed("write the plan"))?;
        control.write_all(&message).await.map_err(failed("instruct the reaper"))?;
        loop {
            match hear(&mut control, plan.pid).await? {
                Wants::Mappings => self.write_mappings(maker.pid)?,
                Wants::Pins { pid_one } => {
                    self.pin(maker.pid, pid_one)?;
                    control.write_all(&[GO]).await.map_err(failed("instruct the reaper"))?;
                    return Ok(pid_one);
                }
            }
            control.write_all(&[GO]).await.map_err(failed("instruct the reaper"))?;
        }
    }

    fn write_mappings(&self, pid: i32) -> Result<(), SandboxError> {
        for (file, mappings) in [("uid_map", &self.spec.uid_mappings), ("gid_map", &self.spec.gid_mappings)] {
            let text: String = mappings.iter().map(|line| format!("{} {} {}\n", line.container_id, line.host_id, line.size)).collect();
            // One write: the kernel takes a mapping whole or not at all.
            File::options()
                .write(true)
                .open(format!("/proc/{pid}/{file}"))
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(failed(format!("write the pod's {file}")))?;
        }
        Ok(())
    }

    fn pin(&mut self, maker: i32, pid_one: Option<i32>) -> Result<(), SandboxError> {
        let directory = self.spec.namespaces_path.clone();
        let (network, ipc, uts, user) = (self.spec.network, self.spec.ipc, self.spec.uts, self.has_user_namespace());
        for (wanted, pid, name) in [(network, maker, "net"), (ipc, maker, "ipc"), (uts, maker, "uts"), (user, maker, "user")] {
            if wanted {
                *self.pins.slot(name) = Some(pin_one(&namespaces_of(pid), name, &directory)?);
            }
        }
        if let Some(pid) = pid_one {
            self.pins.pid = Some(pin_one(&namespaces_of(pid), "pid", &directory)?);
        }
        Ok(())
    }

    fn mount_shared_memory(&mut self) -> Result<(), SandboxError> {
        if self.spec.shm_size_bytes == 0 {
            return Ok(());
        }
        let path = self.spec.shm_path.clone();
        self.make_directory(&path, 0o755)?;
        let owner = |mappings: &[IdMapping]| idmap::translate(mappings, 0).unwrap_or(0);
        let options = format!(
            "mode=1777,size={},uid={},gid={}",
            self.spec.shm_size_bytes,
            owner(&self.spec.uid_mappings),
            owner(&self.spec.gid_mappings)
        );
        mounts::shared_memory(&path, &options).map_err(failed("mount the pod's shared memory"))?;
        self.shm_mounted = true;
        Ok(())
    }
}

/// What the reaper waits for.
#[derive(Debug, PartialEq, Eq)]
enum Wants {
    Mappings,
    Pins { pid_one: Option<i32> },
}

/// Reads until the reaper waits. The maker tells the number of pid 1 while pid 1 tells that it is ready: either may be first.
async fn hear(control: &mut BufReader<UnixStream>, pid_one_wanted: bool) -> Result<Wants, SandboxError> {
    let (mut pid_one, mut is_ready) = (None, false);
    while !(is_ready && pid_one.is_some() == pid_one_wanted) {
        let mut line = String::new();
        control.read_line(&mut line).await.map_err(failed("hear from the reaper"))?;
        let report = serde_json::from_str(&line).map_err(|_| namespaces_error("make the namespaces", "the reaper ended early"))?;
        match report {
            Report::WantsMappings => return Ok(Wants::Mappings),
            Report::Forked { pid } => pid_one = Some(pid),
            Report::Ready => is_ready = true,
            Report::Failed { step, error } => return Err(SandboxError::Namespaces { step, error }),
        }
    }
    Ok(Wants::Pins { pid_one })
}

fn namespaces_error(step: &str, error: impl ToString) -> SandboxError {
    SandboxError::Namespaces { step: step.to_owned(), error: error.to_string() }
}

fn namespaces_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns"))
}

fn pin_one(namespaces: &Path, name: &str, directory: &Path) -> Result<PathBuf, SandboxError> {
    let target = directory.join(name);
    File::options().create(true).truncate(false).write(true).open(&target).map_err(failed(format!("make {}", target.display())))?;
    mounts::bind(&namespaces.join(name), &target).map_err(|source| {
        // The file is ours and empty.
        let _ = fs::remove_file(&target);
        failed(format!("pin the {name} namespace on {}", target.display()))(source)
    })?;
    Ok(target)
}

fn checked_sysctls(spec: &SandboxSpec) -> Result<Vec<(PathBuf, String)>, SandboxError> {
    spec.sysctls
        .iter()
        .map(|(key, value)| {
            let checked = sysctl::check(key, value, spec.network, spec.ipc)?;
            Ok((checked.path, checked.value))
        })
        .collect()
}

fn check(spec: &SandboxSpec) -> Result<(), SandboxError> {
    let invalid = |field, problem: &str| Err(SandboxError::Invalid { field, problem: problem.to_owned() });
    if !spec.namespaces_path.is_absolute() {
        return invalid("namespaces_path", "must be an absolute path");
    }
    if spec.shm_size_bytes > 0 && !spec.shm_path.is_absolute() {
        return invalid("shm_path", "must be an absolute path when shm_size_bytes is not 0");
    }
    if !spec.hostname.is_empty() && !spec.uts {
        return invalid("hostname", "can only be set in a new UTS namespace: ask for namespaces.uts, or leave it empty");
    }
    if spec.hostname.len() > 64 || spec.hostname.contains(['\0', '\n', '/']) {
        return invalid("hostname", "must be at most 64 bytes of a plain name");
    }
    if spec.uid_mappings.is_empty() != spec.gid_mappings.is_empty() {
        return invalid("gid_mappings", "must be given together with uid_mappings");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(reports: &[Report], pid_one_wanted: bool) -> Result<Wants, SandboxError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for report in reports {
            theirs.write_all(format!("{}\n", serde_json::to_string(report).unwrap()).as_bytes()).await.unwrap();
        }
        drop(theirs);
        hear(&mut BufReader::new(ours), pid_one_wanted).await
    }

    #[tokio::test]
    async fn pid_one_and_its_maker_report_in_either_order() {
        let pins = Wants::Pins { pid_one: Some(7) };
        assert_eq!(heard(&[Report::Forked { pid: 7 }, Report::Ready], true).await.unwrap(), pins);
        assert_eq!(heard(&[Report::Ready, Report::Forked { pid: 7 }], true).await.unwrap(), pins);
        assert_eq!(heard(&[Report::Ready], false).await.unwrap(), Wants::Pins { pid_one: None });
        assert_eq!(heard(&[Report::WantsMappings], true).await.unwrap(), Wants::Mappings);
    }

    #[tokio::test]
    async fn a_reaper_that_ends_early_is_an_error() {
        assert!(matches!(heard(&[Report::Ready], true).await, Err(SandboxError::Namespaces { .. })));
        let failure = Report::Failed { step: "x".to_owned(), error: "y".to_owned() };
        assert!(matches!(heard(&[failure], true).await, Err(SandboxError::Namespaces { step, .. }) if step == "x"));
    }
}
