//! Look-ups that stay inside one directory tree, whatever links it holds.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The top of a tree that is not trusted. `..` and absolute links lead nowhere else than to this directory.
pub struct Root {
    dir: OwnedFd,
    /// Who gets what is made anew, unless its maker says otherwise; `None`: whoever we are.
    owner: Option<(u32, u32)>,
}

impl Root {
    /// Opens the tree below `path`, which itself is trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { dir, owner: None })
    }

    /// What is made anew belongs to `owner` (uid, gid).
    pub fn owned_by(self, owner: Option<(u32, u32)>) -> Self {
        Self { owner, ..self }
    }

    /// Opens what `path` leads to inside the tree. Links are followed, magic links (those of procfs) are refused.
    pub fn resolve(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let inside = path.trim_start_matches('/');
        let inside = if inside.is_empty() { "." } else { inside };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel answers AGAIN when something was renamed meanwhile and it cannot tell whether `..` stayed inside.
        for _ in 0..64 {
            match rustix::fs::openat2(&self.dir, inside, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens a regular file for reading; a device, a pipe or a directory in its place is an error and is not waited for.
    pub fn read_file(&self, path: &str) -> io::Result<std::fs::File> {
        let file = std::fs::File::from(self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Makes `path` a directory if nothing is there, its parents too. One that is made anew gets `owner` (uid, gid).
    pub fn ensure_directory(&self, path: &str, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        let parts = parts(path)?;
        let opening = OFlags::PATH | OFlags::DIRECTORY;
        let mut current = self.resolve("/", opening)?;
        for count in 1..=parts.len() {
            // Resolved from the top each time: a link among the parts is followed as the container would follow it.
            let prefix = parts[..count].join("/");
            current = match self.resolve(&prefix, opening) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let owner = owner.filter(|_| count == parts.len()).or(self.owner);
                    make_directory(current, parts[count - 1], owner)?
                }
                other => other?,
            };
        }
        Ok(current)
    }

    /// Makes `path` an empty file if nothing is there, its parents as directories.
    pub fn ensure_file(&self, path: &str) -> io::Result<()> {
        let parts = parts(path)?;
        let Some((name, parents)) = parts.split_last() else {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "names the root directory, a file is wanted"));
        };
        match self.resolve(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return expect_file(&other?),
        }
        let parent = self.ensure_directory(&parents.join("/"), None)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, *name, flags, Mode::from_raw_mode(0o644)) {
            Err(Errno::EXIST) => expect_file(&self.resolve(path, OFlags::PATH).map_err(dangling)?),
            other => set_owner(&other?, self.owner),
        }
    }
}

fn set_owner(made: &OwnedFd, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    Ok(rustix::fs::fchown(made, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?)
}

fn expect_file(found: &OwnedFd) -> io::Result<()> {
    let mode = rustix::fs::fstat(found)?.st_mode;
    match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::Directory => Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, a file is wanted")),
        _ => Ok(()),
    }
}

/// What exists as a name but leads nowhere.
fn dangling(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::AlreadyExists, "is a link that leads nowhere"),
        _ => error,
    }
}

fn parts(path: &str) -> io::Result<Vec<&str>> {
    if path.is_empty() || path.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is empty or holds a NUL"));
    }
    Ok(path.split('/').filter(|part| !part.is_empty() && *part != ".").collect())
}

fn make_directory(parent: OwnedFd, name: &str, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        // Only a link that leads nowhere was not found before and is there now.
        Err(Errno::EXIST) => return Err(dangling(io::ErrorKind::NotFound.into())),
        other => other?,
    }
    let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    // The umask has cut the mode.
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    set_owner(&made, owner)?;
    Ok(made)
}

#[cfg(test)]
#[path = "root_test.rs"]
mod tests;
