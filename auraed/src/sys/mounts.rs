//! Mounts of a pod, and of a guest.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
pub use nix::mount::MsFlags;
use nix::mount::{MntFlags, mount, umount2};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// Binds `source` (which may be a magic link of procfs) on the file or directory `target`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let nothing: Option<&str> = None;
    Ok(mount(Some(source), target, nothing, MsFlags::MS_BIND, nothing)?)
}

/// A new file system of this `kind`; `options` as mount(8) has them.
pub fn file_system(kind: &str, source: &str, target: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some(source), target, Some(kind), flags, Some(options))?)
}

/// A tmpfs as a pod's /dev/shm: nosuid, noexec, nodev. `options` as mount(8) has them.
pub fn shared_memory(target: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    Ok(mount(Some("shm"), target, Some("tmpfs"), flags, Some(options))?)
}

/// Takes every mount on `target` away; success when there is none, or no such file.
pub fn unmount_all(target: &Path) -> io::Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether files can be changed through a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    /// The tree's own mount is read-only; those below it keep what they have.
    ReadOnlyTop,
    ReadOnly,
}

/// A detached copy of the mount tree at and below `path`, gone when the descriptor closes unless it was attached. ELOOP when a part of the
/// path is a symbolic link.
pub fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let found = rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(found.as_fd(), "", flags)?)
}

/// `struct mount_attr` of the kernel's `linux/mount.h`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Every mount of a detached tree: no device nodes, no set-user-id, nothing executed from it, no mounts propagated into it.
pub fn restrict(tree: BorrowedFd<'_>, access: Access) -> io::Result<()> {
    let mut set = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, access == Access::ReadOnly);
    set_attributes(tree, &MountAttributes { set: u64::from(set.bits()), clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 })?;
    if access != Access::ReadOnlyTop {
        return Ok(());
    }
    let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    change_attributes(tree, libc::AT_EMPTY_PATH, &attributes)
}

/// Every mount of a detached tree: read-only, no device nodes, no mounts propagated into it. Programs run as ever.
pub fn freeze(tree: BorrowedFd<'_>) -> io::Result<()> {
    let set = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
    set_attributes(tree, &MountAttributes { set: u64::from(set.bits()), clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 })
}

/// Every mount of a detached tree: the owners of its files are those that the user namespace makes of them. `Unsupported` when a file
/// system of the tree does not allow that.
pub fn map_ids(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let user_namespace = u64::from(user_namespace.as_raw_fd().unsigned_abs());
    let mapped = set_attributes(tree, &MountAttributes { set: libc::MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, user_namespace });
    let unsupported = |reason| io::Error::new(io::ErrorKind::Unsupported, format!("its file system, or one mounted below it, {reason}"));
    mapped.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => unsupported("knows no mapping of ids"),
        Some(libc::EPERM) => unsupported("has its ids mapped already"),
        _ => error,
    })
}

/// What passes from the mounts that a tree is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    None,
    /// What is mounted there appears here too.
    Receive,
}

/// Every mount of a detached tree: nothing done here, unmounting least of all, gets out.
pub fn isolate(tree: BorrowedFd<'_>, propagation: Propagation) -> io::Result<()> {
    let propagation = match propagation {
        Propagation::None => libc::MS_PRIVATE,
        Propagation::Receive => libc::MS_SLAVE,
    };
    set_attributes(tree, &MountAttributes { set: 0, clear: 0, propagation, user_namespace: 0 })
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: &MountAttributes) -> io::Result<()> {
    change_attributes(tree, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, attributes)
}

fn change_attributes(tree: BorrowedFd<'_>, flags: libc::c_int, attributes: &MountAttributes) -> io::Result<()> {
    let size = size_of::<MountAttributes>();
    let attributes: *const MountAttributes = attributes;
    // SAFETY: the kernel reads an empty path and the attributes, both alive for the call, within the length given.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a detached tree at `target`, whose last part is not followed when it is a symbolic link.
pub fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Binds `source` with everything mounted below it on `target`.
pub fn bind_recursively(source: &Path, target: &Path) -> io::Result<()> {
    let nothing: Option<&str> = None;
    Ok(mount(Some(source), target, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?)
}

/// A small tmpfs for mount points and little else.
pub fn small_tmpfs(target: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))?)
}

/// Nothing passes between the mount at `target` and its copies elsewhere.
pub fn make_private(target: &Path) -> io::Result<()> {
    let nothing: Option<&str> = None;
    Ok(mount(nothing, target, nothing, MsFlags::MS_PRIVATE, nothing)?)
}

/// What may be done with a mount, beside reading and executing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Neither writing nor devices nor set-user-id programs.
    ReadOnly,
    /// Writing, but no programs and no devices.
    Data,
}

/// Limits the mount on `target` and everything mounted below it.
pub fn limit(target: &Path, rights: Rights) -> io::Result<()> {
    let common = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let set = common
        | match rights {
            Rights::ReadOnly => libc::MOUNT_ATTR_RDONLY,
            Rights::Data => libc::MOUNT_ATTR_NOEXEC,
        };
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let path = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: the path and the attributes outlive the call, and the size given is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A bind mount of `source` that is nowhere yet: it can be carried into another mount namespace.
pub fn detached(source: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Nothing can be made in the root file system any more; what is mounted below it stays as it is.
pub fn seal_root() -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    let nothing: Option<&str> = None;
    Ok(mount(nothing, "/", nothing, flags, nothing)?)
}
