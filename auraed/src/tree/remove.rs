//! Removes a tree.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Why a tree is still there, in whole or in part.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Something is mounted inside: its content is not ours to remove.
    #[error("{0} is a mount point: unmount it first")]
    Mounted(PathBuf),
    /// The path cannot be removed at all.
    #[error("{0} cannot be removed: give an absolute path below the root without '..'")]
    Refused(PathBuf),
    /// The kernel refused.
    #[error("remove {path}: {source}")]
    Io {
        /// What could not be removed.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Removes `path` and all below it. Success when there is nothing.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_checked(path).map_err(io::Error::other)
}

/// As [`remove`], with the reason as a type.
pub fn remove_checked(path: &Path) -> Result<(), RemoveError> {
    let refused = || RemoveError::Refused(path.to_owned());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(refused()) };
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err(refused());
    }
    let name = CString::new(name.as_bytes()).map_err(|_| refused())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(|error| failed(path, error))?,
    };
    let top = Level { fd: parent, path: path.parent().unwrap_or(path).to_owned() };
    descend(&top, &name)
}

struct Level {
    fd: OwnedFd,
    path: PathBuf,
}

fn failed(path: &Path, error: Errno) -> RemoveError {
    RemoveError::Io { path: path.to_owned(), source: error.into() }
}

/// Removes one name with all below it. A tree of any depth takes a bounded number of descriptors: what is nested deeper is
/// moved up to the top of the tree and met again there.
fn descend(top: &Level, name: &CStr) -> Result<(), RemoveError> {
    let mut stack: Vec<(Level, CString)> = Vec::new();
    let mut moved: u64 = 0;
    let Some(first) = unlink_or_open(top, name)? else { return Ok(()) };
    stack.push((first, name.to_owned()));
    while let Some((level, _)) = stack.last() {
        if let Some((inner, inner_name)) = next_directory(level)? {
            if stack.len() >= super::MAX_DEPTH {
                moved += 1;
                move_up(level, &inner_name, &stack[0].0, moved)?;
            } else {
                stack.push((inner, inner_name));
            }
            continue;
        }
        let Some((level, name)) = stack.pop() else { break };
        let parent = stack.last().map_or(top.fd.as_fd(), |(parent, _)| parent.fd.as_fd());
        match rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::BUSY) => return Err(RemoveError::Mounted(level.path)),
            Err(error) => return Err(failed(&level.path, error)),
        }
    }
    Ok(())
}

fn move_up(from: &Level, name: &CStr, to: &Level, number: u64) -> Result<(), RemoveError> {
    let fresh = format!(".removing-{}-{number}", std::process::id());
    rustix::fs::renameat_with(&from.fd, name, &to.fd, fresh, RenameFlags::NOREPLACE).map_err(|error| failed(&from.path, error))
}

/// Unlinks every entry that is no directory, and opens the first that is one.
fn next_directory(level: &Level) -> Result<Option<(Level, CString)>, RemoveError> {
    let entries = Dir::read_from(level.fd.as_fd()).map_err(|error| failed(&level.path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| failed(&level.path, error))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if let Some(inner) = unlink_or_open(level, name)? {
            return Ok(Some((inner, name.to_owned())));
        }
    }
    Ok(None)
}

fn unlink_or_open(parent: &Level, name: &CStr) -> Result<Option<Level>, RemoveError> {
    let path = parent.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
    match rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR) => {}
        Err(Errno::BUSY) => return Err(RemoveError::Mounted(path)),
        Err(error) => return Err(failed(&path, error)),
    }
    match open_here(parent.fd.as_fd(), name) {
        Ok(fd) => Ok(Some(Level { fd, path })),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::XDEV) => Err(RemoveError::Mounted(path)),
        Err(error) => Err(failed(&path, error)),
    }
}

fn open_here(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), how)
}

#[cfg(test)]
#[path = "remove_test.rs"]
mod tests;
