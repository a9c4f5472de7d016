//! Copies a tree with owners, modes, times, extended attributes, links and special files.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::MAX_DEPTH;

/// Files with several names that were met: where the first name is in the copy.
type HardLinks = HashMap<(u64, u64), CString>;

struct Copy<'a> {
    top: BorrowedFd<'a>,
    links: HardLinks,
}

/// Copies the content and the attributes of the open directory `source` to the existing, empty directory `target`.
pub fn copy(source: OwnedFd, target: &Path) -> io::Result<()> {
    let target = rustix::fs::openat(CWD, target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut copy = Copy { top: target.as_fd(), links: HardLinks::new() };
    copy.directory(source.as_fd(), target.as_fd(), &CString::default(), 0)
}

impl Copy<'_> {
    fn directory(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &CStr, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("nested deeper than {MAX_DEPTH} directories")));
        }
        for entry in Dir::read_from(source)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let inner = CString::new([path.to_bytes(), separator, name.to_bytes()].concat())?;
            self.entry(source, target, name, &inner, depth)?;
        }
        let stat = rustix::fs::fstat(source)?;
        set_owner(target, &stat)?;
        copy_xattrs(source, target)?;
        set_mode_and_times(target, &stat)
    }

    fn entry(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &CStr, path: &CStr, depth: usize) -> io::Result<()> {
        let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return Ok(rustix::fs::linkat(self.top, first, target, name, AtFlags::empty())?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = rustix::fs::openat(source, name, flags, Mode::empty())?;
                rustix::fs::mkdirat(target, name, Mode::RWXU)?;
                let to = rustix::fs::openat(target, name, flags, Mode::empty())?;
                self.directory(from.as_fd(), to.as_fd(), path, depth + 1)
            }
            FileType::RegularFile => copy_file(source, target, name, &stat),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(link, target, name)?;
                finish_by_name(source, target, name, &stat)
            }
            _ => {
                rustix::fs::mknodat(target, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
                rustix::fs::chmodat(target, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
                finish_by_name(source, target, name, &stat)
            }
        }
    }
}

fn copy_file(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut from = File::from(rustix::fs::openat(source, name, reading, Mode::empty())?);
    if !from.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file was exchanged while it was copied"));
    }
    let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(rustix::fs::openat(target, name, writing, Mode::RUSR | Mode::WUSR)?);
    // In the kernel where it can, sharing blocks where the file system can.
    io::copy(&mut from, &mut to)?;
    // The owner first: its change clears set-id bits and file capabilities.
    set_owner(to.as_fd(), stat)?;
    copy_xattrs(from.as_fd(), to.as_fd())?;
    set_mode_and_times(to.as_fd(), stat)
}

fn set_owner(target: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    Ok(rustix::fs::fchown(target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?)
}

fn set_mode_and_times(target: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(target, &times(stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) }
}

/// For what cannot be opened: links and special files.
fn finish_by_name(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(target, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    let (from, to) = (below(source, name)?, below(target, name)?);
    let list = read_all(|buffer| rustix::fs::llistxattr(&from, buffer))?;
    for key in list.split_inclusive(|byte| *byte == 0).filter_map(|key| CStr::from_bytes_with_nul(key).ok()) {
        let value = read_all(|buffer| rustix::fs::lgetxattr(&from, key, buffer))?;
        tolerate(rustix::fs::lsetxattr(&to, key, &value, XattrFlags::empty()))?;
    }
    Ok(rustix::fs::utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A path to `name` in an open directory, for the calls that take no descriptor.
fn below(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<CString> {
    let prefix = format!("/proc/self/fd/{}/", directory.as_raw_fd());
    Ok(CString::new([prefix.as_bytes(), name.to_bytes()].concat())?)
}

fn copy_xattrs(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let list = read_all(|buffer| rustix::fs::flistxattr(source, buffer))?;
    for key in list.split_inclusive(|byte| *byte == 0).filter_map(|key| CStr::from_bytes_with_nul(key).ok()) {
        let value = read_all(|buffer| rustix::fs::fgetxattr(source, key, buffer))?;
        tolerate(rustix::fs::fsetxattr(target, key, &value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// What the file system below the copy does not keep at all is left out.
fn tolerate(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

/// Calls `read` with a buffer that is large enough.
fn read_all(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
