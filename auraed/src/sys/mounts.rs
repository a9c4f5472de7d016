//! Mounts of a pod, and of a guest.

use std::io;
use std::path::Path;

use nix::errno::Errno;
pub use nix::mount::MsFlags;
use nix::mount::{MntFlags, mount, umount2};

/// Binds `source` (which may be a magic link of procfs) on the file or directory `target`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let nothing: Option<&str> = None;
    Ok(mount(Some(source), target, nothing, MsFlags::MS_BIND, nothing)?)
}

/// A new file system of this `kind`; `options` as mount(8) has them.
pub fn file_system(kind: &str, source: &str, target: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some(source), target, Some(kind), flags, Some(options))?)
}

/// A tmpfs as a pod's /dev/shm: nosuid, noexec, nodev. `options` as mount(8) has them.
pub fn shared_memory(target: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    Ok(mount(Some("shm"), target, Some("tmpfs"), flags, Some(options))?)
}

/// Takes every mount on `target` away; success when there is none, or no such file.
pub fn unmount_all(target: &Path) -> io::Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
