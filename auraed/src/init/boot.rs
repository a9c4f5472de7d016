//! What a guest is before anybody asks for anything: file systems, cgroups, limits, settings.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::named;
use crate::sys::mounts::{self, MsFlags};
use crate::sys::{guest, namespace};

const CGROUPS: &str = "/sys/fs/cgroup";
const MODPROBE: &str = "/sbin/modprobe";
/// As many as a service manager would give a container runtime.
const OPEN_FILES: u64 = 1_048_576;
/// Lower than anything of the pod. The kernel never kills its pid 1, but may kill what pid 1 starts.
const OOM_SCORE_ADJ: &str = "-998";

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NO_FILES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// In this order, on directories that the system disk has.
const MOUNTS: [Mount; 8] = [
    Mount { kind: "proc", target: "/proc", flags: NO_FILES, options: "" },
    Mount { kind: "sysfs", target: "/sys", flags: NO_FILES, options: "" },
    Mount { kind: "devtmpfs", target: "/dev", flags: NO_PROGRAMS, options: "mode=0755" },
    Mount { kind: "devpts", target: "/dev/pts", flags: NO_PROGRAMS, options: "gid=5,mode=0620,ptmxmode=0666" },
    Mount { kind: "mqueue", target: "/dev/mqueue", flags: NO_FILES, options: "" },
    // Bundles, mount points, pinned namespaces. The overlays of containers below it must have programs and devices.
    Mount { kind: "tmpfs", target: "/run", flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), options: "mode=0755,size=25%" },
    Mount { kind: "tmpfs", target: "/tmp", flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), options: "mode=1777,size=25%" },
    Mount { kind: "cgroup2", target: CGROUPS, flags: NO_FILES, options: "nsdelegate,memory_recursiveprot" },
];

/// Below /proc/sys.
const SETTINGS: [(&str, &str); 2] = [
    // A guest that has lost its kernel or its pid 1 ends at once, and is not started again.
    ("kernel/panic", "-1"),
    ("kernel/panic_on_oops", "1"),
];

/// Every step.
pub fn boot() -> io::Result<()> {
    for one in &MOUNTS {
        named(&format!("mount {} at {}", one.kind, one.target), mount(one))?;
    }
    named("use the console", use_console())?;
    named("make cgroups", make_cgroups())?;
    named("set the loopback interface up", namespace::loopback_up())?;
    for (name, value) in SETTINGS {
        set(name, value);
    }
    // Without the program, a request for a module fails at once.
    set("kernel/modprobe", if Path::new(MODPROBE).exists() { MODPROBE } else { "" });
    named("limit open files", guest::limit_open_files(OPEN_FILES))?;
    named("limit processes", guest::unlimit_processes())?;
    fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ)
}

fn mount(one: &Mount) -> io::Result<()> {
    fs::create_dir_all(one.target)?;
    mounts::file_system(one.kind, one.kind, Path::new(one.target), one.flags, one.options)
}

/// Our own open file: what it does not take at once is left out, and nothing waits for it.
fn use_console() -> io::Result<()> {
    let console = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/console")?;
    guest::use_console(console.as_fd())
}

/// Hands every controller down. A cgroup that does so holds no processes, but for the root: ours is a leaf all the same, so
/// that what we use is not the machine's.
fn make_cgroups() -> io::Result<()> {
    let root = Path::new(CGROUPS);
    let leaf = root.join("init");
    fs::create_dir_all(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), "0")?;
    for controller in fs::read_to_string(root.join("cgroup.controllers"))?.split_whitespace() {
        named(controller, fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")))?;
    }
    Ok(())
}

/// A kernel without the setting, as for modules where it has none, does without it.
fn set(name: &str, value: &str) {
    match fs::write(Path::new("/proc/sys").join(name), value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => eprintln!("auraed init: setting {name}: {error}"),
        _ => {}
    }
}
