//! `unmount`: everything at and below a directory.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::{HostError, mount_table};

/// Mounts made meanwhile are met in a further round; more rounds than this means somebody is mounting without end.
const MAX_ROUNDS: usize = 64;

/// Unmounts deepest first and answers how many. Lazily only what is busy.
pub fn below(target: &Path) -> Result<usize, HostError> {
    let target = match target.parent().map(Path::canonicalize) {
        // Only the parent's links are followed: the target itself is what is mounted on.
        Some(Ok(parent)) => parent.join(target.file_name().unwrap_or_default()),
        _ => target.to_owned(),
    };
    let mut count = 0;
    for _ in 0..MAX_ROUNDS {
        let mounts = mount_table::below(&target)?;
        if mounts.is_empty() {
            return Ok(count);
        }
        for mount in mounts {
            count += usize::from(unmount(&mount.target)?);
        }
    }
    Err(HostError::State { path: target, reason: format!("something is mounted below it still after {MAX_ROUNDS} rounds") })
}

/// Takes the topmost mount at `target` away; false when there is none.
pub fn unmount(target: &Path) -> Result<bool, HostError> {
    let result = match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    };
    match result {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(error) => Err(HostError::io("unmount", target, error)),
    }
}
