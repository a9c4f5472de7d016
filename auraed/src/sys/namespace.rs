//! Namespaces and what is set up inside new ones.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{ForkResult, fork};

use super::mounts;

/// Namespaces to make.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds {
    pub user: bool,
    pub network: bool,
    pub ipc: bool,
    pub uts: bool,
    pub pid: bool,
}

/// The caller gets new namespaces; of a pid namespace, the children it makes from now on.
pub fn make(kinds: Kinds) -> io::Result<()> {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWUSER, kinds.user);
    flags.set(CloneFlags::CLONE_NEWNET, kinds.network);
    flags.set(CloneFlags::CLONE_NEWIPC, kinds.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, kinds.uts);
    flags.set(CloneFlags::CLONE_NEWPID, kinds.pid);
    Ok(unshare(flags)?)
}

/// Moves the calling thread into a network namespace; for threads that end afterwards.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// Moves the calling thread into a mount namespace, at its root; for threads that end afterwards.
pub fn enter_mounts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // What a thread shares with others of its root and directory keeps it out.
    unshare(CloneFlags::CLONE_FS)?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
}

/// The process gets a mount namespace of its own, from which nothing gets out and into which nothing comes.
pub fn make_private_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&str> = None;
    Ok(mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?)
}

/// Runs `work` on a thread with mounts of its own: what it mounts is gone with it, but for what it hands out detached.
pub fn in_private_mounts<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let there = || make_private_mounts().and_then(|()| work());
    std::thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|_| Err(io::Error::other("a thread of ours panicked")))
}

/// Makes the mount on `root` the root of the process's mount namespace, and takes every other away.
pub fn pivot_into(root: &Path) -> io::Result<()> {
    nix::unistd::chdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(nix::unistd::chdir("/")?)
}

/// Becomes root of the user namespace it is in; supplementary groups are given up where the mapping lets it.
pub fn become_namespace_root() -> io::Result<()> {
    let root_group = nix::unistd::Gid::from_raw(0);
    let root_user = nix::unistd::Uid::from_raw(0);
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(root_group, root_group, root_group)?;
    nix::unistd::setresuid(root_user, root_user, root_user)?;
    Ok(())
}

pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(nix::unistd::sethostname(OsStr::new(name))?)
}

/// Sets the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    // SAFETY: both ioctls read and write the ifreq that is valid for the call; the union is read as what the first one wrote.
    let result = unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        #[allow(clippy::cast_possible_truncation)]
        {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        }
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Which side of a fork this is.
pub enum Fork {
    Parent { child: i32 },
    Child,
}

/// Forks; only for the reaper, which has one thread.
pub fn fork_single_threaded() -> io::Result<Fork> {
    // SAFETY: the process has one thread, so the child may do everything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent { child: child.as_raw() }),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Children end without leaving a zombie: the kernel reaps them, those adopted from others included.
pub fn reap_automatically() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler code.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    Ok(())
}

/// The process is killed when its parent ends.
pub fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Nobody below host privilege may look into this process.
pub fn hide_from_tracers() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// The only mounts of the caller's new mount namespace become a small file system and, in it as `/proc/self`, what procfs shows of
/// this process. Its mounts and the parent namespace's never propagate into each other. For a process with one thread.
pub fn enter_root_with_own_proc() -> io::Result<()> {
    const ANCHOR: &str = "/proc";
    let own_proc = mounts::clone_tree(Path::new(&format!("/proc/{}", std::process::id())))?;
    mounts::restrict(own_proc.as_fd(), mounts::Access::ReadOnly)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), ANCHOR, Some("tmpfs"), flags, Some("size=1m,nr_inodes=2k,mode=0700"))?;
    nix::unistd::chdir(ANCHOR)?;
    std::fs::create_dir_all("proc/self")?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    mounts::attach(own_proc.as_fd(), Path::new("/proc/self"))
}

/// A mount namespace of its own whose only mount is an empty, read-only file system. `anchor` is any directory.
pub fn enter_empty_root(anchor: &Path) -> io::Result<()> {
    make_private_mounts()?;
    let nothing: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), anchor, Some("tmpfs"), flags, Some("size=4k,mode=0555"))?;
    pivot_into(anchor)?;
    mount(nothing, "/", nothing, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags, nothing)?;
    Ok(())
}

/// Gives up every capability.
pub fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: the header and the two data structures of version 3 (six words) outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives up every capability for good, also for programs that would bring some along.
pub fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: plain integers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            return match io::Error::last_os_error() {
                // Beyond the last one that the kernel knows.
                error if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 => Ok(()),
                error => Err(error),
            };
        }
    }
    Ok(())
}

/// Becomes this user and group, without any other group, with nothing that would ever let it be more.
pub fn become_powerless(uid: u32, gid: u32) -> io::Result<()> {
    drop_bounding_set()?;
    let (user, group) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)?;
    drop_capabilities()?;
    Ok(nix::sys::prctl::set_no_new_privs()?)
}
