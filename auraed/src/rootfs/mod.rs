//! A container's root filesystem: an overlay over the image's layers, and what has to be looked up or made inside it.
//!
//! Everything below the mount belongs to the image, which may be hostile. No path of it is ever resolved by the kernel's
//! ordinary rules: [`root::Root`] confines each look-up to the tree, and its callers hold descriptors, not paths.
//!
//! ```text
//!  mount overlay → find the user → working directory → image volumes → mount targets
//! ```
//!
//! Blocking throughout. Each step finds what an earlier, interrupted call has done and goes on from there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::api::pod::v0::{self as api, ResolvedUser};
use crate::idmap::UserNamespace;

pub mod image;
pub mod overlay;
pub mod root;
mod user;
mod volumes;

use root::Root;

/// What the pod contract asks for.
pub type Request = api::PrepareContainerRequest;
/// What the pod contract answers.
pub type Prepared = api::PrepareContainerResponse;

/// Why a root filesystem could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The request, or the image it names, asks for something impossible.
    #[error("{field} {value:?}: {reason}")]
    Invalid {
        /// Field of the request.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl RootfsError {
    pub(crate) fn invalid(field: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.into(), reason: reason.into() }
    }

    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }

    /// Whether another request could succeed where this one cannot (as opposed to a fault of this host).
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid { .. })
    }
}

/// Mounts the root filesystem and makes and looks up everything the request names. With `users` its files are those of the pod's ids.
pub fn prepare(request: &Request, users: Option<&UserNamespace>) -> Result<Prepared, RootfsError> {
    let rootfs = absolute("rootfs_path", &request.rootfs_path)?;
    let scratch = absolute("scratch_path", &request.scratch_path)?;
    let lowers = request.lower_paths.iter().map(|path| absolute("lower_paths", path)).collect::<Result<Vec<_>, _>>()?;
    if !overlay::is_mounted(&rootfs)? {
        overlay::mount(&lowers, &scratch, &rootfs, users)?;
    }
    let prepared = fill(request, &rootfs, users);
    if prepared.is_err() {
        // Nobody will ask for the undoing of what never succeeded.
        let _ = overlay::unmount(&rootfs);
    }
    prepared
}

/// Unmounts the root filesystem. The scratch space and the volumes stay. Success when nothing is mounted.
pub fn release(request: &Request) -> Result<(), RootfsError> {
    let rootfs = absolute("rootfs_path", &request.rootfs_path)?;
    overlay::unmount(&rootfs)?;
    match fs::remove_dir(&rootfs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RootfsError::io(format!("remove {}", rootfs.display()), error)),
        _ => Ok(()),
    }
}

fn fill(request: &Request, rootfs: &Path, users: Option<&UserNamespace>) -> Result<Prepared, RootfsError> {
    let root_owner = users.map(|users| host_ids(users, 0, 0)).transpose()?;
    let root = Root::open(rootfs).map_err(|error| RootfsError::io(format!("open {}", rootfs.display()), error))?.owned_by(root_owner);
    let query = request.user.clone().unwrap_or_default();
    let user = user::find(&root, &query)?;
    let owner = users.map_or(Ok((user.uid, user.gid)), |users| check_mapped(&user, users))?;
    if !request.working_dir.is_empty() {
        let made = root.ensure_directory(&request.working_dir, Some(owner));
        made.map_err(|error| unusable("working_dir", &request.working_dir, error))?;
    }
    let volume_paths = if request.image_volumes.is_empty() {
        Vec::new()
    } else {
        volumes::seed(&root, &request.image_volumes, &absolute("volumes_path", &request.volumes_path)?, root_owner)?
    };
    for target in &request.mount_targets {
        let made = match target.directory {
            true => root.ensure_directory(&target.path, None).map(drop),
            false => root.ensure_file(&target.path),
        };
        made.map_err(|error| unusable("mount_targets", &target.path, error))?;
    }
    Ok(Prepared { user: Some(user), volume_paths })
}

/// The host's ids of the user, all of whose groups have to be mapped as well.
fn check_mapped(user: &ResolvedUser, users: &UserNamespace) -> Result<(u32, u32), RootfsError> {
    user.additional_gids.iter().try_for_each(|&gid| host_ids(users, user.uid, gid).map(drop))?;
    host_ids(users, user.uid, user.gid)
}

fn host_ids(users: &UserNamespace, uid: u32, gid: u32) -> Result<(u32, u32), RootfsError> {
    users.on_host(uid, gid).map_err(|error| RootfsError::invalid("user", format!("{uid}:{gid}"), error.to_string()))
}

/// A path of the image that cannot be used is the request's fault, a full disk is not.
fn unusable(field: &'static str, path: &str, error: io::Error) -> RootfsError {
    use io::ErrorKind::{AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound};
    match error.kind() {
        AlreadyExists | InvalidInput | IsADirectory | NotADirectory | NotFound => RootfsError::invalid(field, path, error.to_string()),
        _ if error.raw_os_error() == Some(libc::ELOOP) => RootfsError::invalid(field, path, error.to_string()),
        _ => RootfsError::io(format!("make {path:?} in the root filesystem"), error),
    }
}

fn absolute(field: &'static str, path: &str) -> Result<PathBuf, RootfsError> {
    let plain = path.starts_with('/') && !path.contains('\0') && !Path::new(path).components().any(|part| part.as_os_str() == "..");
    if plain { Ok(path.into()) } else { Err(RootfsError::invalid(field, path, "must be an absolute path without '..'")) }
}
