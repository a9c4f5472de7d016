//! The overlay mount.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use super::RootfsError;

/// The kernel takes no longer value than this in one `fsconfig` call, its NUL counted.
const FSCONFIG_MAX: usize = 256;

/// Whether something is mounted at `target` itself. A missing directory is not.
pub fn is_mounted(target: &Path) -> Result<bool, RootfsError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, target, flags, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(RootfsError::io(format!("look at {}", target.display()), error)),
    }
}

/// Mounts `lowers` (uppermost first) under `scratch`/upper at `target`. Missing directories are made.
pub fn mount(lowers: &[PathBuf], scratch: &Path, target: &Path) -> Result<(), RootfsError> {
    let Some(topmost) = lowers.first() else {
        return Err(RootfsError::invalid("lower_paths", "", "at least one layer is required"));
    };
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for dir in [scratch, target, &work] {
        fs::create_dir_all(dir).map_err(|error| RootfsError::io(format!("make {}", dir.display()), error))?;
    }
    make_upper(&upper, topmost)?;
    let opened = lowers.iter().map(|path| open_dir(path)).collect::<Result<Vec<_>, _>>()?;
    let fail = |error: Errno| RootfsError::io(format!("mount the overlay at {}", target.display()), error);
    let mounted = match new_mount(lowers, &opened, &upper, &work) {
        // Before Linux 6.5 there is no `lowerdir+`.
        Err(Errno::INVAL | Errno::NOSYS) => return old_mount(&opened, &upper, &work, target),
        other => other.map_err(fail)?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mounted.as_fd(), "", CWD, target, flags).map_err(fail)
}

/// Unmounts whatever is mounted at `target`, lazily only when it is busy. Success when nothing is.
pub fn unmount(target: &Path) -> Result<(), RootfsError> {
    while is_mounted(target)? {
        let result = match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            other => other,
        };
        result.map_err(|error| RootfsError::io(format!("unmount {}", target.display()), error))?;
    }
    Ok(())
}

/// The overlay's top directory shows the upper directory's owner and mode: they are the image's.
fn make_upper(upper: &Path, topmost: &Path) -> Result<(), RootfsError> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let fail = |error: io::Error| RootfsError::io(format!("make {}", upper.display()), error);
    let image = fs::metadata(topmost).map_err(|error| RootfsError::io(format!("lower_paths {}", topmost.display()), error))?;
    match fs::DirBuilder::new().mode(0o700).create(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(fail)?,
    }
    std::os::unix::fs::lchown(upper, Some(image.uid()), Some(image.gid())).map_err(fail)?;
    fs::set_permissions(upper, fs::Permissions::from_mode(image.mode() & 0o7777)).map_err(fail)
}

fn open_dir(path: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| RootfsError::io(format!("lower_paths {}", path.display()), error))
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// One option a layer: their number is not bound by the length of an option string.
fn new_mount(lowers: &[PathBuf], opened: &[OwnedFd], upper: &Path, work: &Path) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
    for (path, fd) in lowers.iter().zip(opened) {
        // The path is what an operator sees in the mount table; one that is too long is given by descriptor.
        match path.to_str() {
            Some(text) if text.len() < FSCONFIG_MAX => rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", text)?,
            _ => rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", by_descriptor(fd))?,
        }
    }
    let kept = [open_dir(upper), open_dir(work)];
    for (option, path, fd) in [("upperdir", upper, &kept[0]), ("workdir", work, &kept[1])] {
        let fd = fd.as_ref().map_err(|_| Errno::NOENT)?;
        match path.to_str() {
            Some(text) if text.len() < FSCONFIG_MAX => rustix::mount::fsconfig_set_string(fs.as_fd(), option, text)?,
            _ => rustix::mount::fsconfig_set_string(fs.as_fd(), option, by_descriptor(fd))?,
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The mount call takes one page of options: descriptors keep each layer at some 18 bytes.
fn old_mount(opened: &[OwnedFd], upper: &Path, work: &Path, target: &Path) -> Result<(), RootfsError> {
    let (upper, work) = (open_dir(upper)?, open_dir(work)?);
    let lower = opened.iter().map(by_descriptor).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower},upperdir={},workdir={}", by_descriptor(&upper), by_descriptor(&work));
    nix::mount::mount(Some("overlay"), target, Some("overlay"), nix::mount::MsFlags::empty(), Some(options.as_str()))
        .map_err(|error| RootfsError::io(format!("mount the overlay at {}", target.display()), error))
}
