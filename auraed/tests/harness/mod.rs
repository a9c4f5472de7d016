//! A pod served by the built `auraed pod`, driven over its socket. Needs root and a static busybox.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use auraed::api::pod::v0::pod_service_client::PodServiceClient;
use auraed::api::pod::v0::{self as api};
use auraed::api::supervisor::v0::supervisor_service_client::SupervisorServiceClient;
use auraed::api::supervisor::v0::{self as supervisor};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

pub const AURAED: &str = env!("CARGO_BIN_EXE_auraed");
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Namespaces of an ordinary pod.
pub const ORDINARY: supervisor::Namespaces = supervisor::Namespaces { network: true, ipc: true, uts: true, pid: false };

/// A running auraed with a sandbox. `end` shuts it down and checks that nothing is left; dropped before that, it is killed.
pub struct TestPod {
    pub dir: tempfile::TempDir,
    pub name: String,
    pub process: Child,
    pub pod: PodServiceClient<Channel>,
    pub supervisor: SupervisorServiceClient<Channel>,
    pub made: supervisor::CreateSandboxResponse,
    pub namespaces: supervisor::Namespaces,
}

/// Starts `auraed pod` and waits until it says that it listens.
pub fn start(dir: &Path) -> Child {
    start_as("pod", dir)
}

/// The same for any supervisor.
pub fn start_as(way: &str, dir: &Path) -> Child {
    let log = fs::File::create(dir.join("auraed.log")).unwrap();
    let mut process = Command::new(AURAED)
        .arg(way)
        .arg("--dir")
        .arg(dir)
        .args(["--log-level", "debug"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{}", fs::read_to_string(dir.join("auraed.log")).unwrap());
    process
}

pub async fn connect(dir: &Path) -> Channel {
    let socket = dir.join("auraed.sock");
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // A stream that is not read fills its own window: the connection's must have room for the others beside it.
    Endpoint::from_static("http://localhost").initial_connection_window_size(1 << 24).connect_with_connector(connector).await.unwrap()
}

impl TestPod {
    pub async fn new() -> Self {
        Self::with(ORDINARY, |_| {}).await
    }

    pub async fn with(namespaces: supervisor::Namespaces, change: impl FnOnce(&mut supervisor::CreateSandboxRequest)) -> Self {
        let mut pod = Self::bare(namespaces).await;
        let mut request = pod.sandbox_request();
        change(&mut request);
        pod.made = pod.supervisor.create_sandbox(request).await.unwrap().into_inner();
        pod
    }

    /// Without a sandbox.
    pub async fn bare(namespaces: supervisor::Namespaces) -> Self {
        let dir = tempfile::Builder::new().prefix("auraed-pod-").tempdir().unwrap();
        let name = format!("auraed-pod-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let process = start(dir.path());
        let channel = connect(dir.path()).await;
        let pod = PodServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        let supervisor = SupervisorServiceClient::new(channel);
        make_rootfs(&dir.path().join("layer"));
        Self { dir, name, process, pod, supervisor, made: supervisor::CreateSandboxResponse::default(), namespaces }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("auraed.log")).unwrap()
    }

    pub fn sandbox_request(&self) -> supervisor::CreateSandboxRequest {
        supervisor::CreateSandboxRequest {
            pod_id: self.name.clone(),
            namespaces: Some(self.namespaces),
            hostname: if self.namespaces.uts { "a-pod".to_owned() } else { String::new() },
            namespaces_path: self.text("ns"),
            shm_size_bytes: if self.namespaces.ipc { 1 << 20 } else { 0 },
            shm_path: self.text("shm"),
            cgroup: Some(supervisor::PodCgroup {
                driver: supervisor::CgroupDriver::Cgroupfs.into(),
                parent: format!("/{}", self.name),
                owned: true,
                leaf: "auraed".to_owned(),
            }),
            ..Default::default()
        }
    }

    pub fn prepare_request(&self, id: &str) -> api::PrepareContainerRequest {
        api::PrepareContainerRequest {
            container_id: id.to_owned(),
            lower_paths: vec![self.text("layer")],
            scratch_path: self.text(&format!("scratch-{id}")),
            rootfs_path: self.text(&format!("bundles/{id}/rootfs")),
            user: Some(api::UserQuery::default()),
            volumes_path: self.text(&format!("volumes-{id}")),
            ..Default::default()
        }
    }

    pub fn spec(&self, id: &str, args: &[&str]) -> Value {
        let caps = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP", "CAP_MKNOD"]);
        let mut namespaces = vec![json!({ "type": "mount" })];
        let pinned = [("network", &self.made.network_path), ("ipc", &self.made.ipc_path), ("uts", &self.made.uts_path)];
        for (kind, path) in pinned.into_iter().filter(|(_, path)| !path.is_empty()) {
            namespaces.push(json!({ "type": kind, "path": path }));
        }
        namespaces.push(if self.made.pid_path.is_empty() {
            json!({ "type": "pid" })
        } else {
            json!({ "type": "pid", "path": self.made.pid_path })
        });
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "env": ["PATH=/bin", "FLAVOUR=plain"],
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            },
            "root": { "path": self.text(&format!("bundles/{id}/rootfs")), "readonly": false },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            ],
            "linux": { "cgroupsPath": format!("/{}/{id}", self.name), "namespaces": namespaces },
        })
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.path(&format!("logs/{id}/0.log"))
    }

    /// Prepares and creates, with `change` applied to the OCI specification and the I/O.
    pub async fn create_with(
        &mut self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value, &mut api::ContainerIo),
    ) -> Result<i32, tonic::Status> {
        self.pod.prepare_container(self.prepare_request(id)).await?;
        let mut io = api::ContainerIo { log_path: self.log_path(id).to_str().unwrap().to_owned(), ..Default::default() };
        let mut spec = self.spec(id, args);
        change(&mut spec, &mut io);
        let request = api::CreateContainerRequest {
            container_id: id.to_owned(),
            bundle_path: self.text(&format!("bundles/{id}")),
            oci_spec: spec.to_string().into_bytes().into(),
            io: Some(io),
        };
        Ok(self.pod.create_container(request).await?.into_inner().pid)
    }

    pub async fn create(&mut self, id: &str, args: &[&str]) -> i32 {
        self.create_with(id, args, |_, _| {}).await.unwrap_or_else(|status| panic!("{status}\n{}", self.log()))
    }

    pub async fn start(&mut self, id: &str) {
        let request = api::StartContainerRequest { container_id: id.to_owned() };
        self.pod.start_container(request).await.unwrap_or_else(|status| panic!("{status}\n{}", self.log()));
    }

    pub async fn run(&mut self, id: &str, script: &str) -> i32 {
        let pid = self.create(id, &["/bin/sh", "-c", script]).await;
        self.start(id).await;
        pid
    }

    pub async fn exec(&mut self, id: &str, script: &str, timeout_ms: u64) -> Result<api::ExecSyncResponse, tonic::Status> {
        let request = api::ExecSyncRequest {
            container_id: id.to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout_ms,
            output_limit_bytes: 1 << 20,
        };
        Ok(self.pod.exec_sync(request).await?.into_inner())
    }

    pub async fn signal(&mut self, id: &str, signal: i32) {
        self.pod.signal_container(api::SignalContainerRequest { container_id: id.to_owned(), signal, all: false }).await.unwrap();
    }

    pub async fn delete(&mut self, id: &str) {
        self.pod.delete_container(api::DeleteContainerRequest { container_id: id.to_owned() }).await.unwrap();
    }

    pub async fn container(&mut self, id: &str) -> Option<api::Container> {
        let list = self.pod.list_containers(api::ListContainersRequest {}).await.unwrap().into_inner();
        list.containers.into_iter().find(|container| container.container_id == id)
    }

    /// Waits for the event and returns how the container ended.
    pub async fn exit(&mut self, id: &str) -> api::Exit {
        let mut events = self.pod.events(api::EventsRequest { after: 0 }).await.unwrap().into_inner();
        let waiting = async {
            loop {
                let event = events.message().await.unwrap().unwrap();
                if event.kind() == api::EventKind::Exited && event.container.as_ref().unwrap().container_id == id {
                    return event.container.unwrap().exit.unwrap();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{id} did not end\n{}", self.log()))
    }

    /// The log file as (stream, tag, payload).
    pub fn records(&self, id: &str) -> Vec<(String, String, String)> {
        parse_records(&fs::read(self.log_path(id)).unwrap())
    }

    /// Shuts down and checks that nothing of the pod is left on the host.
    pub async fn end(mut self) -> Vec<supervisor::ShutdownExit> {
        let exits =
            self.supervisor.shutdown(supervisor::ShutdownRequest {}).await.unwrap_or_else(|status| panic!("{status}\n{}", self.log()));
        let deadline = Instant::now() + Duration::from_secs(5);
        let status = loop {
            match self.process.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("auraed stays\n{}", self.log()),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(status.success(), "{status}\n{}", self.log());
        assert!(!self.path("auraed.sock").exists());
        assert_eq!(mounts_below(self.dir.path()), Vec::<String>::new());
        assert_eq!(cgroups_named(&self.name), Vec::<PathBuf>::new(), "{}", self.log());
        exits.into_inner().exits
    }
}

impl Drop for TestPod {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
            for cgroup in cgroups_named(&self.name) {
                kill_cgroup(&cgroup);
            }
            for mount in mounts_below(self.dir.path()).iter().rev() {
                let _ = nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH);
            }
            for _ in 0..50 {
                for cgroup in cgroups_named(&self.name).iter().rev() {
                    let _ = fs::remove_dir(cgroup);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn kill_cgroup(cgroup: &Path) {
    for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

pub fn mounts_below(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// Cgroups of the pod in every hierarchy, parents first.
pub fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    for root in roots {
        collect(&root.join(name), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    if !dir.is_dir() {
        return;
    }
    found.push(dir.to_owned());
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

pub fn parse_records(bytes: &[u8]) -> Vec<(String, String, String)> {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .map(|line| {
            let mut fields = line.splitn(4, ' ');
            let time = fields.next().unwrap();
            assert!(time.len() == 30 && time.ends_with('Z'), "{line:?}");
            let mut next = || fields.next().unwrap().to_owned();
            (next(), next(), next())
        })
        .collect()
}

/// busybox and its most used names.
pub fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let names = [
        "sh", "cat", "sleep", "ls", "id", "true", "false", "grep", "echo", "kill", "setsid", "seq", "dd", "head", "tail", "hostname", "ps",
        "stty", "tty", "tr", "nc", "ifconfig", "wc", "yes", "nohup", "awk",
    ];
    for name in names {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}
