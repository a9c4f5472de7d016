//! A guest booted by QEMU under TCG with a system disk of the built auraed, driven over its control port as `auraed vm` drives it.
//! Needs qemu-system-x86_64, mkfs.ext4, mkfs.erofs, a static busybox, and a guest kernel at `AURAED_TEST_KERNEL` or in
//! build/guest.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use auraed::api::guest::v0 as guest;
use auraed::api::guest::v0::guest_service_client::GuestServiceClient;
use auraed::api::pod::v0 as api;
use auraed::api::pod::v0::pod_service_client::PodServiceClient;
use auraed::api::supervisor::v0 as supervisor;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint, Uri};

use super::harness::{AURAED, make_rootfs};

const QEMU: &str = "qemu-system-x86_64";
const MAC: &str = "02:00:00:00:aa:01";
const BLOB_ALIGNMENT: u64 = 2 << 20;

/// What a guest is booted with.
pub struct Hardware {
    pub memory_mib: u32,
    pub scratch: bool,
}

impl Default for Hardware {
    fn default() -> Self {
        Self { memory_mib: 192, scratch: true }
    }
}

pub struct Machine {
    pub dir: tempfile::TempDir,
    pub pod: PodServiceClient<Channel>,
    pub guest: GuestServiceClient<Channel>,
    pub configured: guest::ConfigureResponse,
    /// From QEMU's start to the first answer.
    pub first_answer: Duration,
    qemu: Qemu,
    /// Our end of the control port.
    control: UnixStream,
    /// Nobody answers here: no test uses a volume.
    _volumes: UnixListener,
}

/// The kernel; `None`, with the reason printed, where a guest cannot be booted.
pub fn kernel() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/guest/vmlinux");
    let kernel = std::env::var_os("AURAED_TEST_KERNEL").map_or(built, PathBuf::from);
    let programs = [QEMU, "mkfs.ext4", "mkfs.erofs"];
    let missing =
        programs.into_iter().find(|name| Command::new(name).arg("--version").stderr(Stdio::null()).stdout(Stdio::null()).status().is_err());
    if let Some(name) = missing {
        eprintln!("skipped: {name} is not installed");
        return None;
    }
    if !kernel.exists() {
        eprintln!("skipped: no guest kernel at {}: build it, or name one by AURAED_TEST_KERNEL", kernel.display());
        return None;
    }
    Some(kernel)
}

impl Machine {
    pub async fn boot(kernel: &Path, hardware: Hardware) -> Self {
        let dir = tempfile::Builder::new().prefix("auraed-vm-").tempdir().unwrap();
        write_system(dir.path());
        let listener = UnixListener::bind(dir.path().join("control")).unwrap();
        let volumes = UnixListener::bind(dir.path().join("volumes")).unwrap();
        let mut command = command(dir.path(), kernel, &hardware);
        let began = Instant::now();
        let mut qemu = Qemu(command.spawn().unwrap());
        let control = greeted(&listener, &mut qemu.0, dir.path());
        let channel = channel(control.try_clone().unwrap()).await;
        let mut pod = PodServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        let hello = pod.hello(api::HelloRequest { contract_version: 1, features: Vec::new() }).await.unwrap().into_inner();
        let first_answer = began.elapsed();
        println!("first answer after {} ms, {} MiB", first_answer.as_millis(), hardware.memory_mib);
        assert_eq!((hello.pid, hello.auraed_version.as_str()), (1, auraed::VERSION));
        let guest = GuestServiceClient::new(channel);
        Self { dir, pod, guest, configured: guest::ConfigureResponse::default(), first_answer, qemu, control, _volumes: volumes }
    }

    /// Booted and configured with `configuration()`, with one layer mounted.
    pub async fn ready(kernel: &Path) -> Self {
        Self::ready_with(kernel, configuration()).await
    }

    pub async fn ready_with(kernel: &Path, configuration: guest::ConfigureRequest) -> Self {
        let mut machine = Self::boot(kernel, Hardware::default()).await;
        machine.configure(configuration).await.unwrap_or_else(|status| panic!("{status}\n{}", machine.console()));
        machine.plug(0);
        let request = guest::MountLayersRequest { layers: vec![layer(0)] };
        let paths = machine.guest.mount_layers(request).await.unwrap_or_else(|status| panic!("{status}\n{}", machine.console()));
        assert_eq!(paths.into_inner().paths, ["/run/aurae/layers/layer-0"]);
        machine
    }

    pub async fn configure(&mut self, request: guest::ConfigureRequest) -> Result<(), tonic::Status> {
        self.configured = self.guest.configure(request).await?.into_inner();
        Ok(())
    }

    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("console")).unwrap_or_default()).into_owned()
    }

    /// Plugs a layer with a busybox into a root port, 0 to 3.
    pub fn plug(&self, port: u32) {
        let blob = self.dir.path().join("layer.erofs");
        if !blob.exists() {
            write_layer(self.dir.path(), &blob);
        }
        let size = fs::metadata(&blob).unwrap().len();
        let mut qmp = Qmp::connect(&self.dir.path().join("qmp"));
        qmp.call(
            "object-add",
            json!({
                "qom-type": "memory-backend-file", "id": format!("layer{port}"), "share": true, "readonly": true,
                "mem-path": blob, "size": size,
            }),
        );
        qmp.call(
            "device_add",
            json!({
                "driver": "virtio-pmem-pci", "id": format!("pmem{port}"), "memdev": format!("layer{port}"), "bus": format!("rp{port}"),
            }),
        );
    }

    pub fn spec(&self, id: &str, args: &[&str]) -> Value {
        let caps = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_ADMIN"]);
        let pid = if self.configured.pid_path.is_empty() {
            json!({ "type": "pid" })
        } else {
            json!({ "type": "pid", "path": self.configured.pid_path })
        };
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "env": ["PATH=/bin"],
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            },
            "root": { "path": format!("/run/aurae/containers/{id}/rootfs"), "readonly": false },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
                { "destination": "/dev/shm", "type": "bind", "source": "/run/aurae/shm", "options": ["rbind"] },
                { "destination": "/etc/hosts", "type": "bind", "source": "/run/aurae/etc/hosts", "options": ["rbind", "ro"] },
            ],
            "linux": {
                "cgroupsPath": format!("/pod/{id}"),
                "namespaces": [
                    { "type": "mount" }, pid,
                    { "type": "ipc", "path": self.configured.ipc_path }, { "type": "uts", "path": self.configured.uts_path },
                ],
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            },
        })
    }

    /// Prepares, creates and starts a shell script.
    pub async fn run(&mut self, id: &str, script: &str, change: impl FnOnce(&mut Value)) {
        let prepare = api::PrepareContainerRequest {
            container_id: id.to_owned(),
            lower_paths: vec!["/run/aurae/layers/layer-0".to_owned()],
            scratch_path: format!("/scratch/containers/{id}"),
            rootfs_path: format!("/run/aurae/containers/{id}/rootfs"),
            user: Some(api::UserQuery::default()),
            volumes_path: format!("/scratch/containers/{id}/volumes"),
            mount_targets: vec![api::MountTarget { path: "/etc/hosts".to_owned(), directory: false }],
            ..Default::default()
        };
        self.pod.prepare_container(prepare).await.unwrap_or_else(|status| panic!("{status}\n{}", self.console()));
        let mut spec = self.spec(id, &["/bin/sh", "-c", script]);
        change(&mut spec);
        let create = api::CreateContainerRequest {
            container_id: id.to_owned(),
            bundle_path: format!("/var/run/aurae/bundles/{id}"),
            oci_spec: spec.to_string().into_bytes().into(),
            io: Some(api::ContainerIo { log_path: "/a/log".to_owned(), ..Default::default() }),
        };
        self.pod.create_container(create).await.unwrap_or_else(|status| panic!("{status}\n{}", self.console()));
        let start = api::StartContainerRequest { container_id: id.to_owned() };
        self.pod.start_container(start).await.unwrap_or_else(|status| panic!("{status}\n{}", self.console()));
    }

    pub async fn exec(&mut self, id: &str, script: &str) -> api::ExecSyncResponse {
        let request = api::ExecSyncRequest {
            container_id: id.to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout_ms: 20_000,
            output_limit_bytes: 1 << 20,
        };
        self.pod.exec_sync(request).await.unwrap_or_else(|status| panic!("{status}\n{}", self.console())).into_inner()
    }

    /// Standard output of a script in a container.
    pub async fn output(&mut self, id: &str, script: &str) -> String {
        let done = self.exec(id, script).await;
        assert_eq!(done.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
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
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{id} did not end\n{}", self.console()))
    }

    /// Closes the connection and waits until the guest has turned itself off.
    pub async fn end(self) {
        let Self { dir, mut qemu, control, .. } = self;
        control.shutdown(Shutdown::Both).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while qemu.0.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                panic!("the guest stays\n{}", fs::read_to_string(dir.path().join("console")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Ends with the test, whatever became of it.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What every test's pod is made of.
pub fn configuration() -> guest::ConfigureRequest {
    let clock_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap();
    let route = |destination: &str, gateway: &str, scope| supervisor::Route {
        destination: destination.to_owned(),
        gateway: gateway.to_owned(),
        scope,
        ..Default::default()
    };
    guest::ConfigureRequest {
        pod_id: "a-pod".to_owned(),
        hostname: "a-guest".to_owned(),
        sysctls: [("kernel.msgmax", "9000"), ("net.core.somaxconn", "777"), ("vm/swappiness", "7")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        shm_size_bytes: 1 << 20,
        shared_pid: false,
        files: vec![guest::File {
            path: "/run/aurae/etc/hosts".to_owned(),
            content: b"127.0.0.1 localhost\n10.9.0.2 a-guest\n".to_vec().into(),
        }],
        interface: Some(supervisor::Interface {
            name: "eth0".to_owned(),
            mac: vec![2, 0, 0, 0, 0xbb, 2].into(),
            mtu: 1400,
            addresses: vec!["10.9.0.2/24".to_owned(), "fd09::2/64".to_owned()],
            routes: vec![
                route("0.0.0.0/0", "169.254.1.1", 0),
                route("169.254.1.1/32", "", 253),
                route("::/0", "fd09::1", 0),
                route("fd09::/64", "", 0),
                supervisor::Route { metric: 50, source: "10.9.0.2".to_owned(), ..route("10.9.0.0/24", "", 253) },
            ],
        }),
        clock_ns,
        entropy: vec![7; 64].into(),
        ..Default::default()
    }
}

pub fn layer(port: u32) -> guest::Layer {
    guest::Layer { pci_path: format!("02.{port}/00.0"), name: format!("layer-{port}") }
}

fn command(dir: &Path, kernel: &Path, hardware: &Hardware) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-M", "q35,accel=tcg,sata=off,smbus=off,usb=off,hpet=off", "-cpu", "qemu64", "-nodefaults", "-no-user-config"]);
    qemu.args(["-display", "none", "-no-reboot", "-m", &format!("{}M,maxmem=8G", hardware.memory_mib)]);
    let khz = host_khz();
    let root = "root=/dev/pmem0 rootfstype=erofs rootflags=dax=always ro rootwait init=/init";
    let arguments = format!("{root} console=ttyS0 quiet panic=-1 fb_tunnels=none dummy.numdummies=0 tsc_early_khz={khz} lpj={}", 4 * khz);
    qemu.arg("-kernel").arg(kernel).args(["-append", &arguments]);
    // Before those that take any free slot.
    for port in 0..4 {
        let address =
            format!("pcie-root-port,id=rp{port},bus=pcie.0,chassis={},slot={},addr=02.{port},multifunction=on", port + 1, port + 1);
        qemu.args(["-device", &address]);
    }
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    qemu.args(["-chardev", &format!("file,id=console,path={}", path("console")), "-device", "isa-serial,chardev=console"]);
    qemu.args(["-device", "virtio-serial-pci", "-chardev", &format!("socket,id=control,path={}", path("control"))]);
    qemu.args(["-device", "virtserialport,chardev=control,name=aurae.control"]);
    qemu.args(["-chardev", &format!("socket,id=volumes,path={}", path("volumes"))]);
    qemu.args(["-device", "virtserialport,chardev=volumes,name=aurae.volumes"]);
    qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))]);
    // Frames go to a socket that nobody has: they are lost, as on a cable that ends nowhere.
    let cable = format!("dgram,id=net,local.type=unix,local.path={},remote.type=unix,remote.path={}", path("frames"), path("nobody"));
    qemu.args(["-netdev", &cable, "-device", &format!("virtio-net-pci,netdev=net,mac={MAC}")]);
    let size = fs::metadata(dir.join("system.erofs")).unwrap().len();
    let memory = format!("memory-backend-file,id=system,share=on,readonly=on,mem-path={},size={size}", path("system.erofs"));
    qemu.args(["-object", &memory, "-device", "virtio-pmem-pci,memdev=system"]);
    if hardware.scratch {
        let image = dir.join("scratch.img");
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=1"]).arg(&image).status().unwrap();
        assert!(made.success());
        qemu.args(["-drive", &format!("file={},if=none,id=scratch,format=raw,discard=unmap", path("scratch.img"))]);
        qemu.args(["-device", "virtio-blk-pci,drive=scratch,serial=scratch"]);
    }
    qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(dir.join("qemu.log")).unwrap());
    qemu
}

/// Without it, a quarter of the boots under TCG hang while they measure the clock.
fn host_khz() -> u64 {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("cpu MHz")).expect("cpu MHz in /proc/cpuinfo");
    let mhz: f64 = line.trim_start_matches(['\t', ' ', ':']).parse().unwrap();
    (mhz * 1000.0) as u64
}

/// The control stream, after the guest's greeting and not a byte more.
fn greeted(listener: &UnixListener, qemu: &mut Child, dir: &Path) -> UnixStream {
    let read = |name: &str| String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap_or_default()).into_owned();
    let fail = |what: &str| panic!("{what}\n{}\n{}", read("qemu.log"), read("console"));
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut control = loop {
        match listener.accept() {
            Ok((control, _)) => break control,
            Err(_) if qemu.try_wait().unwrap().is_some() || Instant::now() > deadline => fail("QEMU has not connected"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    control.set_nonblocking(false).unwrap();
    control.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut greeting = [0; 8];
    if control.read_exact(&mut greeting).is_err() {
        fail("the guest has not greeted");
    }
    assert_eq!(&greeting, b"AURAED1\n");
    control.set_read_timeout(None).unwrap();
    control.set_nonblocking(true).unwrap();
    control
}

async fn channel(control: UnixStream) -> Channel {
    let once = Arc::new(Mutex::new(Some(control)));
    let connector = tower::service_fn(move |_: Uri| {
        let control = once.lock().unwrap().take();
        async move {
            let control = control.ok_or_else(|| std::io::Error::other("there is one connection"))?;
            tokio::net::UnixStream::from_std(control).map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://guest").initial_connection_window_size(1 << 24).connect_with_connector(connector).await.unwrap()
}

/// What pid 1 is started from, as tools/guest.sh makes it, without modules.
fn write_system(dir: &Path) {
    let tree = dir.join("system");
    for name in ["dev", "proc", "sys", "run", "tmp", "scratch", "var"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("../run", tree.join("var/run")).unwrap();
    fs::copy(AURAED, tree.join("init")).unwrap();
    make_erofs(&tree, &dir.join("system.erofs"));
}

fn write_layer(dir: &Path, blob: &Path) {
    let root = dir.join("layer");
    make_rootfs(&root);
    make_erofs(&root, blob);
}

/// As a guest can map it.
fn make_erofs(tree: &Path, blob: &Path) {
    let made = Command::new("mkfs.erofs").arg("-Enoinline_data").arg(blob).arg(tree).stdout(Stdio::null()).status().unwrap();
    assert!(made.success());
    let file = File::options().write(true).open(blob).unwrap();
    file.set_len(file.metadata().unwrap().len().next_multiple_of(BLOB_ALIGNMENT)).unwrap();
}

/// QEMU's monitor.
struct Qmp(BufReader<UnixStream>);

impl Qmp {
    fn connect(path: &Path) -> Self {
        let mut qmp = Self(BufReader::new(UnixStream::connect(path).unwrap()));
        qmp.line();
        qmp.call("qmp_capabilities", json!({}));
        qmp
    }

    fn call(&mut self, command: &str, arguments: Value) {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        loop {
            let answer = self.line();
            if answer.get("event").is_none() {
                assert!(answer.get("return").is_some(), "{command}: {answer}");
                return;
            }
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}
