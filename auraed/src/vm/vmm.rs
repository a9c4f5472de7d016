//! `auraed vmm`: becomes the virtual machine monitor, with no more than that needs.
//!
//! ```text
//! auraed vm ──exec──► vmm: cgroup, namespaces, root, user ──exec──► QEMU
//! ```
//! An own process, because all of this is a property of processes and must be done by one with a single thread. Hidden: only `auraed vm`
//! starts it. Standard input is the control socket, standard error receives QEMU's own messages.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::MsFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, SFlag, mknod, umask};
use serde::{Deserialize, Serialize};

use crate::helper::{Control, Failure, Step};
use crate::sys::mounts::{self, Rights};
use crate::sys::{fd, namespace, process};

/// Where layers appear in QEMU's root.
pub const LAYERS: &str = "/layers";
/// Number of the first inherited descriptor.
const FIRST_DESCRIPTOR: i32 = 3;
/// Devices of the host that QEMU's root has.
const DEVICES: [&str; 3] = ["null", "zero", "urandom"];
/// Directories with libraries, when the host has them beside /usr and not as links into it.
const LIBRARIES: [&str; 4] = ["lib", "lib32", "lib64", "libx32"];
const LINKER_CACHE: &str = "etc/ld.so.cache";
/// Memory backends, layers and disks are files too.
const MAX_OPEN_FILES: u64 = 4096;

/// What to become.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Process id of `auraed vm`.
    pub parent: i32,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// A directory in each hierarchy.
    pub cgroups: Vec<PathBuf>,
    pub network: PathBuf,
    /// Any directory: the root is made on it, unseen by others.
    pub anchor: PathBuf,
    /// Read-only content of the root: where it is, where it shall be.
    pub files: Vec<(PathBuf, PathBuf)>,
    pub run_path: PathBuf,
    pub scratch: Option<PathBuf>,
    pub kvm: bool,
    pub uid: u32,
    pub gid: u32,
}

/// One line to whoever started us.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The next thing is QEMU, when no failure follows.
    Executing,
    Failed {
        step: String,
        error: String,
    },
}

/// Runs `auraed vmm`, which takes no arguments.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    // Above the numbers that QEMU's descriptors get, and closed when QEMU is executed: that is how success shows.
    let Ok(mut control) = Control::from_stdin().and_then(|control| control.moved(fd::lifted)) else {
        return ExitCode::from(2);
    };
    let Err(Failure(step, error)) = run(&mut control);
    control.report(&Report::Failed { step: step.to_owned(), error: error.to_string() });
    ExitCode::FAILURE
}

fn run(control: &mut Control) -> Result<std::convert::Infallible, Failure> {
    namespace::die_with_parent().step("set the parent-death signal")?;
    let descriptors = control.descriptors().step("receive the descriptors")?;
    let plan: Plan = control.plan().step("read the plan")?;
    let (program, args) = command(&plan).step("read the plan")?;
    for cgroup in &plan.cgroups {
        fs::write(cgroup.join("cgroup.procs"), "0").map_err(about(cgroup)).step("join the cgroup")?;
    }
    // Ours is lower than a workload's may be. Raising it is always allowed.
    fs::write("/proc/self/oom_score_adj", "0").step("set the OOM score")?;
    nix::unistd::setsid().map_err(io::Error::from).step("lead a session")?;
    fs::File::open(&plan.network).and_then(|file| namespace::enter_network(file.as_fd())).step("enter the network namespace")?;
    namespace::make(namespace::Kinds { ipc: true, uts: true, ..Default::default() }).step("make namespaces")?;
    enter_root(&plan)?;
    limit().step("set resource limits")?;
    // Last what takes the rights to do the rest.
    namespace::become_powerless(plan.uid, plan.gid).step("become the VM's user")?;
    // Changing the user took it back.
    namespace::die_with_parent().step("set the parent-death signal")?;
    if nix::unistd::getppid().as_raw() != plan.parent {
        return Err(Failure("stay with auraed", io::Error::other("it has ended")));
    }
    process::restore_signals().step("restore signals")?;
    umask(Mode::from_bits_truncate(0o077));
    fd::arrange_for_exec(descriptors, FIRST_DESCRIPTOR).step("arrange the descriptors")?;
    control.report(&Report::Executing);
    let environment = [c"PATH=/usr/bin:/bin", c"LANG=C.UTF-8", c"TMPDIR=/run"];
    nix::unistd::execve(&program, &args, &environment).map_err(|error| about(&plan.program)(error.into())).step("execute")
}

fn command(plan: &Plan) -> io::Result<(CString, Vec<CString>)> {
    let program = CString::new(plan.program.as_os_str().as_bytes())?;
    let args = plan.args.iter().map(|arg| CString::new(arg.as_bytes()));
    let all = std::iter::once(Ok(program.clone())).chain(args).collect::<Result<Vec<_>, _>>()?;
    Ok((program, all))
}

fn about(path: &Path) -> impl FnOnce(io::Error) -> io::Error + use<'_> {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn limit() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    let files = hard.min(MAX_OPEN_FILES);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, files, files)?)
}

/// Makes a root file system of the plan's parts and goes there, where nothing else can be reached.
fn enter_root(plan: &Plan) -> Result<(), Failure> {
    namespace::make_private_mounts().step("make a mount namespace")?;
    umask(Mode::from_bits_truncate(0o022));
    let root = &plan.anchor;
    mounts::small_tmpfs(root, MsFlags::MS_NOSUID, "mode=0755,size=1m,nr_inodes=1k").step("mount a root")?;
    programs(root).step("mount the host's programs")?;
    devices(root, plan).step("make devices")?;
    for (source, target) in &plan.files {
        bind(source, &below(root, target), Rights::ReadOnly).map_err(about(source)).step("mount a file of the VM")?;
    }
    let layers = below(root, Path::new(LAYERS));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    fs::create_dir(&layers).and_then(|()| mounts::small_tmpfs(&layers, flags, "mode=0755,size=1m,nr_inodes=1k")).step("mount /layers")?;
    bind(&plan.run_path, &root.join("run"), Rights::Data).map_err(about(&plan.run_path)).step("mount /run")?;
    if let Some(scratch) = &plan.scratch {
        bind(scratch, &root.join("scratch.img"), Rights::Data).map_err(about(scratch)).step("mount the scratch disk")?;
    }
    namespace::pivot_into(root).step("enter the root")?;
    mounts::seal_root().step("make the root read-only")
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A file or directory on a new target of its kind.
fn bind(source: &Path, target: &Path, rights: Rights) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if source.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        fs::File::create_new(target)?;
    }
    mounts::bind_recursively(source, target)?;
    mounts::limit(target, rights)
}

/// /usr, and what is beside it on a host that has not merged the two.
fn programs(root: &Path) -> io::Result<()> {
    bind(Path::new("/usr"), &root.join("usr"), Rights::ReadOnly)?;
    for name in LIBRARIES {
        let host = Path::new("/").join(name);
        match fs::read_link(&host) {
            Ok(link) => symlink(link, root.join(name))?,
            Err(_) if host.is_dir() => bind(&host, &root.join(name), Rights::ReadOnly)?,
            Err(_) => {}
        }
    }
    let cache = Path::new("/").join(LINKER_CACHE);
    if cache.exists() { bind(&cache, &root.join(LINKER_CACHE), Rights::ReadOnly) } else { Ok(()) }
}

/// Nodes of our own: whose they are is nobody's business on the host.
fn devices(root: &Path, plan: &Plan) -> io::Result<()> {
    let directory = root.join("dev");
    fs::create_dir(&directory)?;
    let kvm = plan.kvm.then_some(("kvm", 0o600));
    for (name, mode) in DEVICES.into_iter().map(|name| (name, 0o666)).chain(kvm) {
        let (host, node) = (Path::new("/dev").join(name), directory.join(name));
        let device = fs::metadata(&host).map_err(about(&host))?.rdev();
        mknod(&node, SFlag::S_IFCHR, Mode::empty(), device)?;
        fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        if name == "kvm" {
            std::os::unix::fs::chown(&node, Some(plan.uid), Some(plan.gid))?;
        }
    }
    Ok(())
}
