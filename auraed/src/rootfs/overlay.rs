//! The overlay mount.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use super::RootfsError;
use crate::idmap::UserNamespace;
use crate::sys::{mounts, namespace};

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

/// Mounts `lowers` (uppermost first) under `scratch`/upper at `target`. Missing directories are made. With `users` the layers' files belong
/// to the pod's ids, and so does what is written.
pub fn mount(lowers: &[PathBuf], scratch: &Path, target: &Path, users: Option<&UserNamespace>) -> Result<(), RootfsError> {
    if lowers.is_empty() {
        return Err(RootfsError::invalid("lower_paths", "", "at least one layer is required"));
    }
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for dir in [scratch, target, &work] {
        fs::create_dir_all(dir).map_err(|error| RootfsError::io(format!("make {}", dir.display()), error))?;
    }
    let layers = Layers::open(lowers, users)?;
    make_upper(&upper, &layers.opened)?;
    attach(&layers, Some((&upper, &work)), target)
}

/// Mounts `lowers` (uppermost first, at least two) at the directory `target`, read-only and without device nodes. `users` as with `mount`.
pub fn mount_read_only(lowers: &[PathBuf], target: &Path, users: Option<&UserNamespace>) -> Result<(), RootfsError> {
    attach(&Layers::open(lowers, users)?, None, target)
}

/// Layers as an overlay takes them.
struct Layers<'a> {
    paths: &'a [PathBuf],
    /// Of each its directory, or a copy of its mount, nowhere yet, with its files' owners mapped.
    opened: Vec<OwnedFd>,
    mapped: bool,
}

impl<'a> Layers<'a> {
    fn open(paths: &'a [PathBuf], users: Option<&UserNamespace>) -> Result<Self, RootfsError> {
        let opened = match users {
            None => paths.iter().map(|path| open_dir(path)).collect::<Result<Vec<_>, _>>()?,
            Some(users) => map_layers(paths, users)?,
        };
        Ok(Self { paths, opened, mapped: users.is_some() })
    }
}

/// `writable`: the upper directory and the work directory.
fn attach(layers: &Layers<'_>, writable: Option<(&Path, &Path)>, target: &Path) -> Result<(), RootfsError> {
    let fail = |error: io::Error| RootfsError::io(format!("mount the overlay at {}", target.display()), error);
    let mounted = if layers.mapped {
        namespace::in_private_mounts(|| {
            // Over the layers themselves: the overlay finds them by the same names. The kernel takes only attached mounts.
            layers.opened.iter().zip(layers.paths).try_for_each(|(tree, path)| mounts::attach(tree.as_fd(), path))?;
            Ok(new_mount(layers.paths, writable)?)
        })
    } else {
        match new_mount(layers.paths, writable) {
            // Before Linux 6.5 there is no `lowerdir+`.
            Err(Errno::INVAL | Errno::NOSYS) => return old_mount(&layers.opened, writable, target),
            other => other.map_err(io::Error::from),
        }
    };
    mounts::attach(mounted.map_err(fail)?.as_fd(), target).map_err(fail)
}

fn map_layers(lowers: &[PathBuf], users: &UserNamespace) -> Result<Vec<OwnedFd>, RootfsError> {
    let user_namespace = users.open().map_err(|error| RootfsError::io(format!("open {}", users.path.display()), error))?;
    let map = |path: &PathBuf| -> io::Result<OwnedFd> {
        let tree = mounts::detached(path)?;
        mounts::map_ids(tree.as_fd(), user_namespace.as_fd())?;
        Ok(tree)
    };
    let fail = |path: &PathBuf, error| RootfsError::io(format!("map the ids of lower_paths {}", path.display()), error);
    lowers.iter().map(|path| map(path).map_err(|error| fail(path, error))).collect()
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

/// The overlay's top directory shows the upper directory's owner and mode: they are those of the uppermost layer.
fn make_upper(upper: &Path, layers: &[OwnedFd]) -> Result<(), RootfsError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let fail = |error: io::Error| RootfsError::io(format!("make {}", upper.display()), error);
    let image = layers.first().map_or(Err(Errno::NOENT), rustix::fs::fstat).map_err(|error| fail(error.into()))?;
    match fs::DirBuilder::new().mode(0o700).create(upper) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(fail)?,
    }
    std::os::unix::fs::lchown(upper, Some(image.st_uid), Some(image.st_gid)).map_err(fail)?;
    fs::set_permissions(upper, fs::Permissions::from_mode(image.st_mode & 0o7777)).map_err(fail)
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_dir(path: &Path) -> Result<OwnedFd, RootfsError> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
        .map_err(|error| RootfsError::io(format!("lower_paths {}", path.display()), error))
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// One option a layer: their number is not bound by the length of an option string.
fn new_mount(lowers: &[PathBuf], writable: Option<(&Path, &Path)>) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
    let layers = lowers.iter().map(|path| ("lowerdir+", path.as_path()));
    let own = writable.map(|(upper, work)| [("upperdir", upper), ("workdir", work)]);
    for (option, path) in layers.chain(own.into_iter().flatten()) {
        // The path is what an operator sees in the mount table; one that is too long is given by descriptor.
        match path.to_str() {
            Some(text) if text.len() < FSCONFIG_MAX => rustix::mount::fsconfig_set_string(fs.as_fd(), option, text)?,
            _ => {
                let opened = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
                rustix::mount::fsconfig_set_string(fs.as_fd(), option, by_descriptor(&opened))?;
            }
        }
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
