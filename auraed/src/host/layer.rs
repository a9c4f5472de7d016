//! `mount-layer`: an EROFS blob, read-only and without device nodes.
//!
//! set-user-id programs of an image must keep working, so nosuid is not set here.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use super::loop_device::LoopDevice;
use super::{HostError, mount_table, unmount};

const EROFS_MAGIC_OFFSET: u64 = 1024;
const EROFS_MAGIC: u32 = 0xe0f5_e1e2;

/// Mounts `blob` at `target`, which is made when missing. Answers how: `file`, `loop`, or `before` when it was mounted already.
pub fn mount(blob: &Path, target: &Path) -> Result<&'static str, HostError> {
    let opened = File::open(blob).map_err(|error| HostError::io("open", blob, error))?;
    check_magic(&opened, blob)?;
    fs::create_dir_all(target).map_err(|error| HostError::io("make", target, error))?;
    let target = target.canonicalize().map_err(|error| HostError::io("resolve", target, error))?;
    let blob = blob.canonicalize().map_err(|error| HostError::io("resolve", blob, error))?;
    if let Some(present) = mount_table::read()?.into_iter().rfind(|mount| mount.target == target) {
        return match present.fs_type == "erofs" && shows(&target, &opened, &present.source, &blob) {
            true => Ok("before"),
            false => Err(HostError::State { path: target, reason: format!("{} is mounted there", present.source.display()) }),
        };
    }
    let (mounted, how) = match from_file(&blob) {
        // Kernels before 6.12, or built without file-backed EROFS, want a block device.
        Err(Errno::NOTBLK | Errno::INVAL | Errno::OPNOTSUPP) => (from_loop(&opened, &blob)?, "loop"),
        other => (other.map_err(|error| HostError::io("mount", &blob, error))?, "file"),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mounted.as_fd(), "", CWD, &target, flags).map_err(|error| HostError::io("mount at", &target, error))?;
    one_of_two(&target, how)
}

/// Two calls at once may both have mounted: the later mount is on top and goes.
fn one_of_two(target: &Path, how: &'static str) -> Result<&'static str, HostError> {
    let same = mount_table::read()?.into_iter().filter(|mount| mount.target == target && mount.fs_type == "erofs").count();
    if same < 2 {
        return Ok(how);
    }
    unmount::unmount(target)?;
    Ok("before")
}

fn check_magic(blob: &File, path: &Path) -> Result<(), HostError> {
    use std::os::unix::fs::FileExt;
    let mut magic = [0; 4];
    let read = blob.read_exact_at(&mut magic, EROFS_MAGIC_OFFSET);
    if read.is_err() || u32::from_le_bytes(magic) != EROFS_MAGIC {
        return Err(HostError::State { path: path.to_owned(), reason: "is not an EROFS image".into() });
    }
    Ok(())
}

/// Whether the mount at `target` is of this blob.
fn shows(target: &Path, blob: &File, source: &Path, path: &Path) -> bool {
    source == path || LoopDevice::is_of(source, blob) || source == by_descriptor(blob) && target.is_dir()
}

fn by_descriptor(blob: &File) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", blob.as_raw_fd()).into()
}

fn from_file(blob: &Path) -> Result<OwnedFd, Errno> {
    let source = blob.to_str().ok_or(Errno::INVAL)?;
    erofs(source, false)
}

fn from_loop(opened: &File, path: &Path) -> Result<OwnedFd, HostError> {
    let device = LoopDevice::attach(opened, path)?;
    // The device clears itself once nothing has it open: neither we, nor the mount.
    erofs(&device.path, false).map_err(|error| HostError::io("mount", path, error))
}

/// Not yet attached anywhere. `dax`: files are mapped from the device itself, without a copy in memory, or it is an error.
pub(crate) fn erofs(source: &str, dax: bool) -> Result<OwnedFd, Errno> {
    let fs = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", source)?;
    rustix::mount::fsconfig_set_flag(fs.as_fd(), "ro")?;
    if dax {
        rustix::mount::fsconfig_set_string(fs.as_fd(), "dax", "always")?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
