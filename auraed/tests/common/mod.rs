//! A container made by the built `auraed oci`, on a root filesystem of one static busybox. Needs root.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

pub const AURAED: &str = env!("CARGO_BIN_EXE_auraed");
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A bundle, its state directory and, once created, its container. Dropping it deletes all three.
pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub id: String,
    pub spec: Value,
}

impl Sandbox {
    /// A bundle whose container runs `args`.
    pub fn new(args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("auraed-test-").tempdir().unwrap();
        let id = format!("auraed-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        make_rootfs(&dir.path().join("bundle/rootfs"));
        let spec = spec(&id, args);
        Self { dir, id, spec }
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// Where `name` below the container's own parent cgroup exists, in all hierarchies of either version.
    pub fn cgroups(&self, name: &str) -> Vec<PathBuf> {
        let top = PathBuf::from("/sys/fs/cgroup");
        let inner = fs::read_dir(&top).unwrap().map(|entry| entry.unwrap().path());
        let roots = inner.filter(|path| path.is_dir() && !path.ends_with(&self.id)).chain([top.clone()]);
        roots.map(|root| root.join(&self.id).join(name)).filter(|path| path.is_dir()).collect()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log.json")).unwrap_or_default()
    }

    /// Runs one operation. Output goes to files: a pipe would be kept open by the container.
    pub fn oci(&self, args: &[&str]) -> Output {
        let (out, err) = (self.dir.path().join("out"), self.dir.path().join("err"));
        let status = Command::new(AURAED)
            .args(["oci", "--root"])
            .arg(self.dir.path().join("state"))
            .arg("--log")
            .arg(self.dir.path().join("log.json"))
            .args(["--log-format", "json"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .status()
            .unwrap();
        Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() }
    }

    pub fn create(&self) -> Output {
        fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
        let (bundle, pid) = (self.bundle(), self.pid_file());
        self.oci(&["create", "--bundle", bundle.to_str().unwrap(), "--pid-file", pid.to_str().unwrap(), &self.id])
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.pid_file()).unwrap().trim().parse().unwrap()
    }

    /// Creates and starts the container, or fails the test with what was said.
    pub fn run(&self) {
        self.expect(self.create());
        self.expect(self.oci(&["start", &self.id]));
    }

    pub fn expect(&self, output: Output) -> String {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}\n{}\nlog: {}", text, String::from_utf8_lossy(&output.stderr), self.log());
        text
    }

    /// Runs a shell command inside the running container and returns what it printed.
    pub fn exec(&self, script: &str) -> Output {
        self.exec_with(json!({ "args": ["/bin/sh", "-c", script] }))
    }

    /// `exec` with fields of the process replaced.
    pub fn exec_with(&self, fields: Value) -> Output {
        let mut process = self.spec["process"].clone();
        for (key, value) in fields.as_object().unwrap() {
            process[key] = value.clone();
        }
        let file = self.dir.path().join("process.json");
        fs::write(&file, process.to_string()).unwrap();
        self.oci(&["exec", "--process", file.to_str().unwrap(), &self.id])
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.oci(&["delete", "--force", &self.id]);
        for path in self.cgroups("") {
            // A cgroup is busy for a moment after its last process.
            for _ in 0..100 {
                match fs::remove_dir(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(Duration::from_millis(10)),
                    _ => break,
                }
            }
        }
    }
}

/// busybox and its most used names.
pub fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "mnt"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in
        ["sh", "cat", "sleep", "ls", "id", "true", "false", "grep", "mkdir", "touch", "stat", "ulimit", "chmod", "ln", "echo", "kill"]
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

fn spec(id: &str, args: &[&str]) -> Value {
    let caps = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP", "CAP_MKNOD"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/",
            "env": ["PATH=/bin"],
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            // A parent of its own for each: removing it can hinder nobody else's create.
            "cgroupsPath": format!("/{id}/container"),
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }],
        },
    })
}

/// A filter that lets everything through but `sethostname`.
pub fn seccomp() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
    })
}
