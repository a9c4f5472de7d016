//! The VM's scratch disk: a sparse copy of a template.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes copied in one call.
const CHUNK_BYTES: u64 = 64 * 1024 * 1024;
/// The same through a buffer of ours.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Makes `path` a copy of `template` in which holes stay holes, mode 0600, for `uid`. What was at `path` is gone.
pub fn make(template: &Path, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    remove(path)?;
    let source = File::open(template)?;
    if !source.metadata()?.is_file() {
        return Err(io::Error::other("the template is not a file"));
    }
    let target = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let made = copy(&source, &target).and_then(|()| fchown(&target, Some(uid), Some(gid)));
    if made.is_err() {
        remove(path)?;
    }
    made
}

/// Success when there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy(source: &File, target: &File) -> io::Result<()> {
    // Blocks shared until they are written, where the file system can.
    if rustix::fs::ioctl_ficlone(target.as_fd(), source.as_fd()).is_ok() {
        return Ok(());
    }
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let mut at = 0;
    while let Some((begin, end)) = extent(source, at)? {
        at = begin;
        while at < end {
            let (mut from, mut to) = (at, at);
            let length = usize::try_from((end - at).min(CHUNK_BYTES)).map_err(io::Error::other)?;
            let copied = match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
                // Between file systems of two kinds it is not for the kernel to do.
                Err(Errno::XDEV) => copy_piece(source, target, at, length)?,
                result => result?,
            };
            match copied {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the template became shorter while it was copied")),
                copied => at += copied as u64,
            }
        }
    }
    Ok(())
}

/// Copies some of the `length` bytes at `at`; 0 at the end of the source.
fn copy_piece(source: &File, target: &File, at: u64, length: usize) -> io::Result<usize> {
    let mut buffer = vec![0; length.min(BUFFER_BYTES)];
    let read = source.read_at(&mut buffer, at)?;
    target.write_all_at(&buffer[..read], at)?;
    Ok(read)
}

/// The next stretch of data at or after `from`.
fn extent(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(begin) => Ok(Some((begin, seek(file, SeekFrom::Hole(begin))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (template, path) = (dir.path().join("template"), dir.path().join("scratch"));
        let file = File::create(&template).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        fs::write(&path, "of an earlier attempt").unwrap();
        make(&template, &path, 1234, 1235).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.len(), made.uid(), made.gid(), made.mode() & 0o777), (64 << 20, 1234, 1235, 0o600));
        assert!(made.blocks() * 512 < 1 << 20, "{} blocks", made.blocks());
        assert!(fs::read(&path).unwrap() == fs::read(&template).unwrap());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(make(&dir.path().join("none"), &path, 1, 1).is_err());
        assert!(!path.exists());
    }
}
