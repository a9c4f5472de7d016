//! The pod's scratch disk: where containers' writable layers are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::errors::GuestError;
use crate::rootfs::overlay;
use crate::sys::mounts::{self, MsFlags};

const TARGET: &str = "/scratch";
const BLOCK: &str = "/sys/block";
/// How the disk is marked by whoever attached it.
const SERIAL: &str = "scratch";
/// Blocks that are freed become holes of the host's file; tables are not written that nobody needs.
const OPTIONS: &str = "discard,noinit_itable";

/// Mounts it; success when it is mounted.
pub async fn mount() -> Result<(), GuestError> {
    let target = Path::new(TARGET);
    let action = "mount the scratch disk";
    if overlay::is_mounted(target).is_ok_and(|mounted| mounted) {
        return Ok(());
    }
    let device = find(Path::new(BLOCK), SERIAL)
        .map_err(GuestError::io("look for the scratch disk"))?
        .ok_or_else(|| GuestError::Missing { what: format!("virtio disk with the serial {SERIAL:?}") })?;
    let work = move || {
        fs::create_dir_all(target)?;
        mounts::file_system("ext4", &device.to_string_lossy(), target, MsFlags::MS_NOATIME, OPTIONS)
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::from).and_then(|result| result).map_err(GuestError::io(action))
}

/// The device node of the disk with this serial.
fn find(block: &Path, serial: &str) -> io::Result<Option<PathBuf>> {
    for disk in fs::read_dir(block)? {
        let disk = disk?;
        if fs::read_to_string(disk.path().join("serial")).is_ok_and(|found| found.trim_end() == serial) {
            return Ok(Some(Path::new("/dev").join(disk.file_name())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial() {
        let block = tempfile::tempdir().unwrap();
        for (name, serial) in [("pmem0", None), ("vda", Some("other\n")), ("vdb", Some("scratch"))] {
            fs::create_dir(block.path().join(name)).unwrap();
            if let Some(serial) = serial {
                fs::write(block.path().join(name).join("serial"), serial).unwrap();
            }
        }
        assert_eq!(find(block.path(), "scratch").unwrap(), Some(PathBuf::from("/dev/vdb")));
        assert_eq!(find(block.path(), "none").unwrap(), None);
    }
}
