//! What a container's writable layer takes: counted by walking it, not more often than anybody needs.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io;

/// How old a count may be.
const FRESH: Duration = Duration::from_secs(10);
/// Where a walk ends: beyond it the container is known to be large.
const MAX_ENTRIES: u64 = 1_000_000;
/// Deeper trees are cut: each level holds a descriptor.
const MAX_DEPTH: usize = 256;

/// Bytes and inodes of a directory tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// A writable layer and the file system that it lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    pub usage: Usage,
    pub capacity_bytes: u64,
    /// 0: the file system does not count them.
    pub inodes_total: u64,
    pub inodes_free: u64,
    /// As in /dev; empty when the file system has none of its own.
    pub device: String,
}

/// With a count that is not too old.
pub async fn layer(usage: &CachedUsage, upper: PathBuf) -> Layer {
    let usage = usage.get(upper.clone()).await;
    let Ok(stat) = rustix::fs::statvfs(&upper) else { return Layer { usage, ..Layer::default() } };
    Layer {
        usage,
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        inodes_total: stat.f_files,
        inodes_free: stat.f_ffree,
        device: rustix::fs::stat(&upper)
            .map(|stat| device_name(rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)))
            .unwrap_or_default(),
    }
}

/// The name of a block device as in /dev; empty when the kernel has none for it.
pub fn device_name(major: u32, minor: u32) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap_or_default();
    link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The last count of one writable layer. Cheap to clone.
#[derive(Clone, Default)]
pub struct CachedUsage(Arc<Mutex<Option<(Instant, Usage)>>>);

impl CachedUsage {
    /// Counts anew, in a thread, when the last count is too old.
    pub async fn get(&self, upper: PathBuf) -> Usage {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, usage)) = last
            && at.elapsed() < FRESH
        {
            return usage;
        }
        let counted = tokio::task::spawn_blocking(move || count(&upper)).await.unwrap_or_default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), counted));
        counted
    }
}

/// Walks below `root` by descriptors, following no link and leaving no file system. What vanishes meanwhile is not counted.
pub fn count(root: &Path) -> Usage {
    let mut walk = Walk { usage: Usage::default(), linked: HashSet::new(), device: 0 };
    if let Ok(directory) = openat(CWD, root, DIRECTORY, Mode::empty()) {
        if let Ok(stat) = rustix::fs::fstat(&directory) {
            walk.device = stat.st_dev;
            walk.usage = Usage { bytes: blocks(stat.st_blocks), inodes: 1 };
        }
        // A tree that cannot be read counts as far as it could.
        let _ = walk.directory(directory, 0);
    }
    walk.usage
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// A block of stat is 512 bytes whatever the file system's is.
fn blocks(count: i64) -> u64 {
    count.unsigned_abs().saturating_mul(512)
}

struct Walk {
    usage: Usage,
    /// Inodes with several names, counted once.
    linked: HashSet<u64>,
    device: u64,
}

impl Walk {
    fn directory(&mut self, directory: OwnedFd, depth: usize) -> io::Result<()> {
        let mut entries = Dir::read_from(&directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." || self.usage.inodes >= MAX_ENTRIES {
                continue;
            }
            let Ok(stat) = statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != self.device || (stat.st_nlink > 1 && !is_directory(stat.st_mode) && !self.linked.insert(stat.st_ino)) {
                continue;
            }
            self.usage.bytes += blocks(stat.st_blocks);
            self.usage.inodes += 1;
            if is_directory(stat.st_mode)
                && depth < MAX_DEPTH
                && let Ok(child) = openat(directory.as_fd(), name, DIRECTORY, Mode::empty())
            {
                self.directory(child, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn is_directory(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn counts_each_inode_once_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), vec![1u8; 8192]).unwrap();
        fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).unwrap();
        symlink("/usr", dir.path().join("l")).unwrap();
        let usage = count(dir.path());
        assert_eq!(usage.inodes, 4);
        assert!((8192..65536).contains(&usage.bytes), "{usage:?}");
        assert_eq!(count(Path::new("/no/such/directory")), Usage::default());
    }
}
