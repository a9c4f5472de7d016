//! `auraed vm` against the kernel: what QEMU is given and what is kept from it, its end, what is left. Needs root; busybox stands in for
//! QEMU where only its surroundings matter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use auraed::api::pod::v0::pod_service_client::PodServiceClient;
use auraed::api::pod::v0::{self as pod};
use auraed::api::supervisor::v0::supervisor_service_client::SupervisorServiceClient;
use auraed::api::supervisor::v0::vm_service_client::VmServiceClient;
use auraed::api::supervisor::v0::{self as api};
use harness::{AURAED, cgroups_named, connect, mounts_below, start_as};
use tonic::Code;
use tonic::transport::Channel;

const BUSYBOX: &str = "/usr/bin/busybox";
const UID: u32 = 70_123;
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running `auraed vm` with a sandbox. Killed when dropped, its VM with it.
struct TestVm {
    dir: tempfile::TempDir,
    name: String,
    process: Child,
    supervisor: SupervisorServiceClient<Channel>,
    vm: VmServiceClient<Channel>,
    pod: PodServiceClient<Channel>,
    network: String,
}

impl TestVm {
    async fn new() -> Self {
        let mut vm = Self::bare().await;
        let made = vm.supervisor.create_sandbox(vm.sandbox_request()).await.unwrap().into_inner();
        vm.network = made.network_path;
        vm
    }

    async fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("auraed-vm-").tempdir().unwrap();
        let name = format!("auraed-vm-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let process = start_as("vm", dir.path());
        let channel = connect(dir.path()).await;
        fs::File::create(dir.path().join("template")).unwrap().set_len(8 << 20).unwrap();
        Self {
            supervisor: SupervisorServiceClient::new(channel.clone()),
            vm: VmServiceClient::new(channel.clone()),
            pod: PodServiceClient::new(channel),
            network: String::new(),
            dir,
            name,
            process,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("auraed.log")).unwrap()
    }

    fn sandbox_request(&self) -> api::CreateSandboxRequest {
        api::CreateSandboxRequest {
            pod_id: self.name.clone(),
            namespaces: Some(api::Namespaces { network: true, ..Default::default() }),
            namespaces_path: self.text("ns"),
            cgroup: Some(api::PodCgroup {
                driver: api::CgroupDriver::Cgroupfs.into(),
                parent: format!("/{}", self.name),
                owned: true,
                leaf: "auraed".to_owned(),
            }),
            ..Default::default()
        }
    }

    /// A shell where QEMU would be.
    fn shell(&self, script: &str) -> api::StartVmRequest {
        api::StartVmRequest {
            program: BUSYBOX.to_owned(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            run_path: self.text("run"),
            uid: UID,
            gid: UID,
            cgroup: format!("/{}-vm/qemu", self.name),
            scratch_template: self.text("template"),
            scratch_path: self.text("scratch"),
            ..Default::default()
        }
    }

    async fn start(&mut self, request: api::StartVmRequest) -> i32 {
        self.vm.start_vm(request).await.unwrap_or_else(|status| panic!("{status}\n{}", self.log())).into_inner().pid
    }

    async fn status(&mut self) -> api::VmStatusResponse {
        self.vm.vm_status(api::VmStatusRequest {}).await.unwrap().into_inner()
    }

    async fn status_when(&mut self, holds: impl Fn(&api::VmStatusResponse) -> bool) -> api::VmStatusResponse {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Shuts down and checks that nothing is left.
    async fn end(mut self) {
        self.supervisor.shutdown(api::ShutdownRequest {}).await.unwrap_or_else(|status| panic!("{status}\n{}", self.log()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "auraed stays\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.check_clean();
    }

    fn check_clean(&self) {
        assert_eq!(mounts_below(self.dir.path()), Vec::<String>::new());
        for name in [self.name.clone(), format!("{}-vm", self.name)] {
            assert_eq!(cgroups_named(&name), Vec::<PathBuf>::new(), "{}", self.log());
        }
    }

    fn clean(&self) {
        let cgroups = [format!("/{}", self.name), format!("/{}-vm", self.name)];
        let mut command = Command::new(AURAED);
        command.args(["host", "clean-pod", "--dir"]).arg(self.dir.path());
        for name in &cgroups {
            command.args(["--cgroup", name]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
            self.clean();
        }
    }
}

fn exists(pid: i32) -> bool {
    // A zombie has ended: whoever has to wait for it may take its time.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn proc_status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap().trim().to_owned()
}

#[tokio::test]
async fn qemu_has_what_it_needs_and_nothing_else() {
    let mut vm = TestVm::new().await;
    fs::write(vm.path("kernel"), "a kernel").unwrap();
    let script = "cd /; echo root $(ls -A /); echo dev $(ls /dev); echo file $(cat /boot/kernel); echo w > /run/made; \
        for path in /x /usr/x /layers/x /boot/kernel /dev/x; do echo w 2>/dev/null > $path && echo wrote $path; done; \
        dd if=/dev/zero of=/scratch.img bs=1 count=1 conv=notrunc 2>/dev/null && echo disk; \
        echo ends; exec sleep 1000";
    let mut request = vm.shell(script);
    request.files = vec![api::VmFile { host_path: vm.text("kernel"), path: "/boot/kernel".to_owned() }];
    let pid = vm.start(request.clone()).await;
    let status = vm.status_when(|status| status.vmm_tail.contains("ends")).await;
    assert_eq!(status.state(), api::VmState::Running);
    let mut lines = status.vmm_tail.lines();
    let root: Vec<_> = lines.next().unwrap().split(' ').skip(1).filter(|name| !name.starts_with("lib")).collect();
    assert_eq!(root, ["boot", "dev", "etc", "layers", "run", "scratch.img", "usr"]);
    assert_eq!(lines.collect::<Vec<_>>(), ["dev null urandom zero", "file a kernel", "disk", "ends"]);

    let id = UID.to_string();
    assert_eq!(proc_status(pid, "Uid").split_whitespace().collect::<Vec<_>>(), [id.as_str(); 4]);
    assert_eq!(proc_status(pid, "Gid").split_whitespace().collect::<Vec<_>>(), [id.as_str(); 4]);
    assert_eq!(proc_status(pid, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(proc_status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
    assert_eq!(fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino(), fs::metadata(&vm.network).unwrap().ino());
    for kind in ["mnt", "ipc", "uts"] {
        let of = |pid: u32| fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap().ino();
        assert_ne!(of(pid.cast_unsigned()), of(vm.process.id()), "{kind}");
    }
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        cgroups.lines().all(|line| line.ends_with("-vm/qemu") || line.starts_with("0::") && !Path::new("/sys/fs/cgroup/unified").exists()),
        "{cgroups}"
    );
    let mut descriptors: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/6")).unwrap(), Path::new("/dev/net/tun"));

    assert_eq!(fs::metadata(vm.path("run/made")).unwrap().uid(), UID);
    let scratch = fs::metadata(vm.path("scratch")).unwrap();
    assert_eq!((scratch.uid(), scratch.permissions().mode() & 0o777, scratch.len()), (UID, 0o600, 8 << 20));
    // Only the pinned namespace is mounted on the host.
    assert_eq!(mounts_below(vm.dir.path()), [vm.network.clone()]);
    // The identical second call answers like the first, another is refused.
    assert_eq!(vm.start(request.clone()).await, pid);
    request.args.push("more".to_owned());
    assert_eq!(vm.vm.start_vm(request).await.unwrap_err().code(), Code::AlreadyExists);
    let scratch = vm.path("scratch");
    vm.end().await;
    assert!(!exists(pid) && !scratch.exists());
}

type Spoil = fn(&mut api::StartVmRequest);

#[tokio::test]
async fn a_start_that_fails_says_which_step_and_can_be_tried_again() {
    let mut vm = TestVm::bare().await;
    let early = vm.vm.start_vm(vm.shell("true")).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    vm.supervisor.create_sandbox(vm.sandbox_request()).await.unwrap();
    let cases: [(&str, Spoil); 4] = [
        ("execute", |request| request.program = "/usr/bin/no-such-qemu".to_owned()),
        ("mount a file of the VM: /no/such/file", |request| {
            request.files = vec![api::VmFile { host_path: "/no/such/file".to_owned(), path: "/f".to_owned() }];
        }),
        ("make the scratch disk", |request| request.scratch_template = "/no/such/template".to_owned()),
        ("uid", |request| request.uid = 0),
    ];
    for (expected, change) in cases {
        let mut request = vm.shell("exec sleep 1000");
        change(&mut request);
        let status = vm.vm.start_vm(request).await.unwrap_err();
        assert!(status.message().contains(expected), "{expected}: {status}");
        assert!(!vm.path("scratch").exists());
        assert_eq!(cgroups_named(&format!("{}-vm", vm.name)), Vec::<PathBuf>::new());
    }
    assert_eq!(vm.status().await.state(), api::VmState::NotStarted);
    vm.start(vm.shell("exec sleep 1000")).await;
    vm.end().await;
}

#[tokio::test]
async fn the_end_of_qemu_is_told_with_its_reason() {
    let mut vm = TestVm::new().await;
    let hello = vm.pod.hello(pod::HelloRequest::default()).await.unwrap_err();
    assert_eq!(hello.code(), Code::Unavailable, "{hello}");
    let mut events = vm.pod.events(pod::EventsRequest::default()).await.unwrap().into_inner();
    vm.start(vm.shell("echo booting >&4; sleep 0.3; echo cannot allocate memory >&2; exit 7")).await;
    let mut client = vm.pod.clone();
    let waiting = tokio::spawn(async move { client.hello(pod::HelloRequest::default()).await });
    let status = vm.status_when(|status| status.state() == api::VmState::Exited).await;
    assert_eq!((status.exit_code, status.oom_killed, status.guest_ready), (7, false, false));
    assert!(status.exited_at_ns >= status.started_at_ns && status.started_at_ns > 0);
    assert_eq!((status.console_tail.as_str(), status.vmm_tail.trim_end()), ("booting\n", "cannot allocate memory"));
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "the VM has ended with 7: cannot allocate memory"));
    // The daemon's stream ends: that is what it comes to ask for.
    assert!(events.message().await.unwrap().is_none());
    assert_eq!(vm.pod.list_containers(pod::ListContainersRequest {}).await.unwrap().into_inner().containers, []);
    vm.end().await;
}

#[tokio::test]
async fn a_guest_that_speaks_something_else_is_given_up() {
    let mut vm = TestVm::new().await;
    vm.start(vm.shell("echo HTTP/1.1 400 >&3; exec sleep 1000")).await;
    let status = vm.status_when(|status| status.state() == api::VmState::Exited).await;
    assert_eq!(status.exit_code, 137);
    assert!(status.vmm_tail.contains("not one of ours"), "{status:?}");
    vm.end().await;
}

#[tokio::test]
async fn a_layer_appears_in_the_root_of_a_vm_that_runs() {
    let mut vm = TestVm::new().await;
    fs::write(vm.path("blob"), "a layer").unwrap();
    fs::write(vm.path("other"), "another").unwrap();
    let expose = |name: &str, path: String| api::ExposeLayerRequest { host_path: path, name: name.to_owned() };
    let early = vm.vm.expose_layer(expose("l", vm.text("blob"))).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    let pid = vm.start(vm.shell("until cat /layers/sha256-0f 2>/dev/null; do sleep 0.02; done >&2; echo w 2>/dev/null >/layers/sha256-0f && echo wrote >&2; exec sleep 1000")).await;
    for _ in 0..2 {
        vm.vm.expose_layer(expose("sha256-0f", vm.text("blob"))).await.unwrap();
    }
    assert_eq!(vm.status_when(|status| !status.vmm_tail.is_empty()).await.vmm_tail, "a layer");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let line = mounts.lines().find(|line| line.contains(" /layers/sha256-0f ")).unwrap();
    assert!(line.contains(" ro,nosuid,nodev"), "{line}");
    assert_eq!(mounts_below(vm.dir.path()), [vm.network.clone()]);
    let refused = vm.vm.expose_layer(expose("sha256-0f", vm.text("other"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    for (name, path) in [("../x", vm.text("blob")), ("x", "relative".to_owned())] {
        assert_eq!(vm.vm.expose_layer(expose(name, path)).await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    let missing = vm.vm.expose_layer(expose("x", vm.text("missing"))).await.unwrap_err();
    assert!(missing.message().contains("missing"), "{missing}");
    vm.end().await;
}

#[tokio::test]
async fn qemu_dies_with_auraed_and_nothing_is_left() {
    let mut vm = TestVm::new().await;
    let pid = vm.start(vm.shell("trap '' TERM HUP INT; while true; do sleep 1; done")).await;
    vm.process.kill().unwrap();
    vm.process.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while exists(pid) {
        assert!(Instant::now() < deadline, "QEMU outlives auraed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    vm.clean();
    vm.check_clean();
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let mut vm = TestVm::new().await;
    let attach = vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap_err();
    assert_eq!(attach.code(), Code::Unavailable);
    vm.start(vm.shell("exec sleep 1000")).await;
    let attach = vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap_err();
    assert_eq!((attach.code(), attach.message().contains("has none")), (Code::FailedPrecondition, true), "{attach}");
    let missing = api::Volume { name: "v".to_owned(), host_path: "/no/such/directory".to_owned(), ..Default::default() };
    let shared = vm.vm.share_volumes(api::ShareVolumesRequest { volumes: vec![missing] }).await.unwrap_err();
    assert!(shared.message().contains("/no/such/directory"), "{shared}");
    let log = api::OpenLogRequest { container_id: "c".to_owned(), path: vm.text("logs/c/0.log") };
    vm.vm.open_log(log.clone()).await.unwrap();
    vm.vm.open_log(log).await.unwrap();
    assert!(vm.path("logs/c/0.log").exists());
    vm.vm.close_log(api::CloseLogRequest { container_id: "c".to_owned() }).await.unwrap();
    vm.end().await;
}

/// In the network namespace of that path, on a thread that does not come back.
fn inside<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = fs::File::open(namespace).unwrap();
    let thread = std::thread::spawn(move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

fn ip(namespace: &str, args: &str) {
    let output = Command::new("nsenter").arg(format!("--net={namespace}")).arg("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace by name; gone when dropped.
struct Peer(String);

impl Peer {
    fn new(name: &str) -> Self {
        assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
        Self(name.to_owned())
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// What CNI does: an interface in the VM's namespace, its other end with a peer.
fn make_network(vm: &TestVm) -> Peer {
    let peer = Peer::new(&vm.name);
    ip(&vm.network, &format!("link add eth0 mtu 1400 address 02:00:00:00:09:02 type veth peer name p0 mtu 1400 netns {}", peer.0));
    ip(&vm.network, "link set eth0 up");
    ip(&vm.network, "addr add 10.9.9.2/24 dev eth0");
    ip(&vm.network, "-6 addr add fd00:9::2/64 dev eth0 nodad");
    ip(&vm.network, "route add default via 10.9.9.1 dev eth0");
    ip(&vm.network, "route add 10.77.0.0/16 via 10.9.9.7 dev eth0 src 10.9.9.2 metric 50 onlink");
    ip(&vm.network, "-6 route add default via fd00:9::1 dev eth0");
    ip(&peer.path(), "link set p0 up");
    ip(&peer.path(), "addr add 10.9.9.1/24 dev p0");
    ip(&peer.path(), "-6 addr add fd00:9::1/64 dev p0 nodad");
    peer
}

#[tokio::test]
async fn the_interface_is_described_and_joined_once() {
    let mut vm = TestVm::new().await;
    let _peer = make_network(&vm);
    vm.start(vm.shell("exec sleep 1000")).await;
    let interface = vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap().into_inner().interface.unwrap();
    assert_eq!((interface.name.as_str(), interface.mtu, &interface.mac[..]), ("eth0", 1400, &[2, 0, 0, 0, 9, 2][..]));
    assert_eq!(interface.addresses, ["10.9.9.2/24", "fd00:9::2/64"]);
    let route = |destination: &str| interface.routes.iter().find(|route| route.destination == destination).unwrap().clone();
    assert_eq!(route("0.0.0.0/0").gateway, "10.9.9.1");
    assert_eq!(route("::/0").gateway, "fd00:9::1");
    assert_eq!((route("10.9.9.0/24").gateway.as_str(), route("10.9.9.0/24").scope), ("", 253));
    let special = route("10.77.0.0/16");
    assert_eq!((special.gateway.as_str(), special.source.as_str(), special.metric, special.onlink), ("10.9.9.7", "10.9.9.2", 50, true));
    assert!(interface.routes.iter().all(|route| !route.destination.starts_with("fe80")), "{:?}", interface.routes);
    let again = vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap().into_inner().interface.unwrap();
    assert_eq!(again, interface);
    let text = |what: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", vm.network)).args(what.split(' '));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for device in ["eth0", "tap0"] {
        assert_eq!(text(&format!("tc filter show dev {device} ingress")).matches("Redirect").count(), 1, "{device}");
    }
    let tap = text("ip link show tap0");
    assert!(tap.contains("mtu 1400") && tap.contains("UP"), "{tap}");
    vm.end().await;
}

#[tokio::test]
async fn more_than_one_interface_is_refused_by_name() {
    let mut vm = TestVm::new().await;
    let _peer = make_network(&vm);
    ip(&vm.network, "link add other0 type bridge");
    vm.start(vm.shell("exec sleep 1000")).await;
    let refused = vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("2 (eth0, other0)") || refused.message().contains("2 (other0, eth0)"), "{refused}");
    // Mended, it works.
    ip(&vm.network, "link del other0");
    vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap();
    vm.end().await;
}

/// An archive with busybox as the one program, and a script as /init.
fn make_initrd(dir: &Path, init: &str) -> PathBuf {
    use std::os::unix::fs::symlink;
    let tree = dir.join("initrd");
    ["bin", "dev", "proc", "sys"].iter().for_each(|name| fs::create_dir_all(tree.join(name)).unwrap());
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    symlink("busybox", tree.join("bin/sh")).unwrap();
    fs::write(tree.join("init"), init).unwrap();
    fs::set_permissions(tree.join("init"), PermissionsExt::from_mode(0o755)).unwrap();
    let archive = dir.join("initrd.cpio");
    let pack = format!("cd {} && find . | busybox cpio -o -H newc >{}", tree.display(), archive.display());
    assert!(Command::new("sh").arg("-c").arg(pack).output().unwrap().status.success());
    archive
}

/// Boots a kernel under TCG in a real QEMU, with a network and a console.
fn qemu(vm: &TestVm, kernel: &str, initrd: &Path) -> api::StartVmRequest {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    let mhz = cpuinfo.lines().find(|line| line.starts_with("cpu MHz")).unwrap().rsplit(' ').next().unwrap();
    let khz = (mhz.parse::<f64>().unwrap() * 1000.0).round();
    let append = format!("console=ttyS0 reboot=t panic=-1 tsc_early_khz={khz} lpj={}", khz * 4.0);
    let mut args: Vec<_> =
        "-M q35,accel=tcg,sata=off,smbus=off,usb=off,hpet=off -cpu qemu64 -m 128M -nodefaults -no-user-config -display none -no-reboot \
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
        -chardev socket,id=console,fd=4 -serial chardev:console -device virtio-serial-pci \
        -chardev socket,id=control,fd=3 -device virtserialport,chardev=control,name=aurae.control \
        -chardev socket,id=volumes,fd=5 -device virtserialport,chardev=volumes,name=aurae.volumes \
        -netdev tap,id=n,fd=6 -device virtio-net-pci,netdev=n,mac=02:00:00:00:09:02,romfile= \
        -drive if=none,id=s,file=/scratch.img,format=raw -device virtio-blk-pci,drive=s,serial=scratch \
        -qmp unix:/run/qmp.sock,server=on,wait=off -kernel /boot/kernel -initrd /boot/initrd -append"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    args.push(append);
    let file = |host_path: &str, path: &str| api::VmFile { host_path: host_path.to_owned(), path: path.to_owned() };
    api::StartVmRequest {
        program: "/usr/bin/qemu-system-x86_64".to_owned(),
        args,
        files: vec![file(kernel, "/boot/kernel"), file(initrd.to_str().unwrap(), "/boot/initrd")],
        ..vm.shell("")
    }
}

/// Sends `size` bytes to whoever sends them back, and compares.
fn echo(address: &str, size: usize) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let sent: Vec<u8> = (0..size).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect();
    let (mut writer, data) = (stream.try_clone().unwrap(), sent.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = vec![0; size];
    stream.read_exact(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent);
}

/// Needs a guest kernel: AURAE_TEST_KERNEL names it.
#[tokio::test]
async fn a_guest_boots_and_speaks_over_the_pods_network() {
    let Some(kernel) = std::env::var("AURAE_TEST_KERNEL").ok() else {
        eprintln!("skipped: AURAE_TEST_KERNEL names no guest kernel");
        return;
    };
    let mut vm = TestVm::new().await;
    let peer = make_network(&vm);
    let init = "#!/bin/sh\nb=/bin/busybox\n$b mount -t proc p /proc\n$b mount -t devtmpfs d /dev\n$b ip link set eth0 mtu 1400 up\n\
        $b ip addr add 10.9.9.2/24 dev eth0\n$b ip addr add fd00:9::2/64 dev eth0\n$b nc -ll -p 7000 -e $b cat &\n\
        echo guest is up >/dev/ttyS0\nwhile true; do $b sleep 1; [ -e /stop ] && $b poweroff -f; done\n";
    let initrd = make_initrd(vm.dir.path(), init);
    vm.start(qemu(&vm, &kernel, &initrd)).await;
    vm.vm.attach_network(api::AttachNetworkRequest {}).await.unwrap();
    let status = vm.status_when(|status| status.console_tail.contains("guest is up") || status.state() == api::VmState::Exited).await;
    assert_eq!(status.state(), api::VmState::Running, "{status:?}");
    assert!(vm.path("run/qmp.sock").exists());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    inside(&peer.path(), || echo("10.9.9.2:7000", 8 << 20));
    println!("8 MiB there and back in {:?}", began.elapsed());
    inside(&peer.path(), || echo("[fd00:9::2]:7000", 1 << 20));
    let resident = proc_status(vm.process.id().cast_signed(), "VmRSS");
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", vm.process.id())).unwrap();
    println!("auraed vm: RSS {resident}, {}", rollup.lines().find(|line| line.starts_with("Pss:")).unwrap());
    vm.end().await;
}

#[tokio::test]
async fn a_kernel_that_panics_ends_the_vm_with_its_console() {
    let Some(kernel) = std::env::var("AURAE_TEST_KERNEL").ok() else {
        eprintln!("skipped: AURAE_TEST_KERNEL names no guest kernel");
        return;
    };
    let mut vm = TestVm::new().await;
    let initrd = make_initrd(vm.dir.path(), "#!/bin/none\n");
    vm.start(qemu(&vm, &kernel, &initrd)).await;
    let status = vm.status_when(|status| status.state() == api::VmState::Exited).await;
    assert!(status.console_tail.contains("Kernel panic"), "{status:?}");
    let hello = vm.pod.hello(pod::HelloRequest::default()).await.unwrap_err();
    assert!(hello.message().contains("the VM has ended"), "{hello}");
    println!("{hello}");
    vm.end().await;
}
