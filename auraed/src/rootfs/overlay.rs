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
    attach(lowers, Some((&upper, &work)), target)
}

/// Mounts `lowers` (uppermost first, at least two) at the directory `target`, read-only and without device nodes.
pub fn mount_read_only(lowers: &[PathBuf], target: &Path) -> Result<(), RootfsError> {
    attach(lowers, None, target)
}

/// `writable`: the upper directory and the work directory.
fn attach(lowers: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> Result<(), RootfsError> {
    let opened = lowers.iter().map(|path| open_dir(path)).collect::<Result<Vec<_>, _>>()?;
    let fail = |error: Errno| RootfsError::io(format!("mount the overlay at {}", target.display()), error);
    let mounted = match new_mount(lowers, &opened, writable) {
        // Before Linux 6.5 there is no `lowerdir+`.
        Err(Errno::INVAL | Errno::NOSYS) => return old_mount(&opened, writable, target),
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
fn new_mount(lowers: &[PathBuf], opened: &[OwnedFd], writable: Option<(&Path, &Path)>) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
    for (path, fd) in lowers.iter().zip(opened) {
        // The path is what an operator sees in the mount table; one that is too long is given by descriptor.
        match path.to_str() {
            Some(text) if text.len() < FSCONFIG_MAX => rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", text)?,
            _ => rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", by_descriptor(fd))?,
        }
    }
    // Open until the file system is made.
    let mut kept = Vec::new();
    for (option, path) in writable.map(|(upper, work)| [("upperdir", upper), ("workdir", work)]).into_iter().flatten() {
        let fd = open_dir(path).map_err(|_| Errno::NOENT)?;
        match path.to_str() {
            Some(text) if text.len() < FSCONFIG_MAX => rustix::mount::fsconfig_set_string(fs.as_fd(), option, text)?,
            _ => rustix::mount::fsconfig_set_string(fs.as_fd(), option, by_descriptor(&fd))?,
        }
        kept.push(fd);
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = match writable {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The mount call takes one page of options: descriptors keep each layer at some 18 bytes.
fn old_mount(opened: &[OwnedFd], writable: Option<(&Path, &Path)>, target: &Path) -> Result<(), RootfsError> {
    use nix::mount::MsFlags;
    let lower = opened.iter().map(by_descriptor).collect::<Vec<_>>().join(":");
    let kept = writable.map(|(upper, work)| Ok::<_, RootfsError>((open_dir(upper)?, open_dir(work)?))).transpose()?;
    let (options, flags) = match &kept {
        Some((upper, work)) => {
            (format!("lowerdir={lower},upperdir={},workdir={}", by_descriptor(upper), by_descriptor(work)), MsFlags::empty())
        }
        None => (format!("lowerdir={lower}"), MsFlags::MS_RDONLY | MsFlags::MS_NODEV),
    };
    nix::mount::mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))
        .map_err(|error| RootfsError::io(format!("mount the overlay at {}", target.display()), error))
}
