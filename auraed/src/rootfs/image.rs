//! An image as a volume: its merged layers, or one directory of them, read-only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::root::Root;
use super::{RootfsError, absolute, overlay, unusable};
use crate::api::pod::v0 as api;
use crate::idmap::UserNamespace;
use crate::sys::mounts;

/// What the pod contract asks for.
pub type Request = api::MountImageRequest;

/// Mounts the image at the request's path and answers that path. Mounted already is success. With `users` its files belong to the pod's ids.
pub fn mount(request: &Request, users: Option<&UserNamespace>) -> Result<PathBuf, RootfsError> {
    let target = absolute("mount_path", &request.mount_path)?;
    let lowers = request.lower_paths.iter().map(|path| absolute("lower_paths", path)).collect::<Result<Vec<_>, _>>()?;
    if overlay::is_mounted(&target)? {
        return Ok(target);
    }
    fs::create_dir_all(&target).map_err(|error| RootfsError::io(format!("make {}", target.display()), error))?;
    match mount_at(&target, &lowers, &request.sub_path, users) {
        Ok(()) => Ok(target),
        Err(error) => {
            // Nobody will ask for the undoing of what never succeeded.
            let _ = unmount(&target);
            Err(error)
        }
    }
}

/// Unmounts the image and removes its mount point. Success when there is neither.
pub fn unmount(target: &Path) -> Result<(), RootfsError> {
    overlay::unmount(target)?;
    match fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RootfsError::io(format!("remove {}", target.display()), error)),
        _ => Ok(()),
    }
}

fn mount_at(target: &Path, lowers: &[PathBuf], sub_path: &str, users: Option<&UserNamespace>) -> Result<(), RootfsError> {
    match lowers {
        [] => Err(RootfsError::invalid("lower_paths", "", "at least one layer is required")),
        // An overlay without an upper directory wants two layers; one is its own merged view.
        [layer] => {
            let directory = directory_of(layer, sub_path)?;
            if let Some(users) = users {
                map(&directory, users).map_err(|error| RootfsError::io(format!("map the ids of {}", layer.display()), error))?;
            }
            attach(&directory, target)
        }
        _ => {
            overlay::mount_read_only(lowers, target, users)?;
            if sub_path.is_empty() {
                return Ok(());
            }
            // A directory of a mount can be cloned once that mount is attached somewhere, and lives on without it.
            let directory = directory_of(target, sub_path)?;
            overlay::unmount(target)?;
            attach(&directory, target)
        }
    }
}

fn map(tree: &OwnedFd, users: &UserNamespace) -> io::Result<()> {
    mounts::map_ids(tree.as_fd(), users.open()?.as_fd())
}

/// A mount of one directory of `tree`, attached nowhere yet.
fn directory_of(tree: &Path, sub_path: &str) -> Result<OwnedFd, RootfsError> {
    let fail = |error: io::Error| RootfsError::io(format!("open {}", tree.display()), error);
    let root = Root::open(tree).map_err(fail)?;
    let found = root.resolve(sub_path, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| unusable("sub_path", sub_path, error))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let cloned = rustix::mount::open_tree(found.as_fd(), "", flags).map_err(|error| fail(error.into()))?;
    mounts::freeze(cloned.as_fd()).map_err(fail)?;
    Ok(cloned)
}

fn attach(mounted: &OwnedFd, target: &Path) -> Result<(), RootfsError> {
    let fail = |error: Errno| RootfsError::io(format!("mount the image at {}", target.display()), error);
    rustix::mount::move_mount(mounted.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(fail)
}
