//! Layers of images: each a virtio-pmem device at a PCI address of its own, with an EROFS on it that is mapped, never copied.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;
use tokio::time::{Instant, sleep};

use super::errors::GuestError;
use crate::host::layer::erofs;
use crate::sys::mounts;

const DEVICES: &str = "/sys/bus/pci/devices";
const MOUNT_TABLE: &str = "/proc/self/mountinfo";
const TARGETS: &str = "/run/aurae/layers";
/// How long a device that was plugged may take to appear.
const APPEARANCE_LIMIT: Duration = Duration::from_secs(5);
/// sysfs tells nobody of what appears in it.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// From the device to its bus of its memory, region, namespace, block device.
const MAX_DEPTH: usize = 10;
const MAX_PATH_BYTES: usize = 64;

/// A layer that was plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// PCI addresses from bus 0 on: `10.0/01.0` is device 1 on the bus behind device 16.
    pub pci_path: String,
    /// A plain file name.
    pub name: String,
}

impl Layer {
    /// Checks what came from outside.
    pub fn new(pci_path: String, name: String) -> Result<Self, GuestError> {
        if pci_path.len() > MAX_PATH_BYTES || !pci_path.split('/').all(is_address) {
            return Err(GuestError::invalid("layers.pci_path", format!("{pci_path:?} must be PCI addresses from bus 0 on, as 10.0/01.0")));
        }
        let plain = name.chars().all(|character| matches!(character, 'a'..='z' | '0'..='9' | '-' | '.'));
        if !plain || name.len() > 128 || name.starts_with('.') || name.is_empty() {
            return Err(GuestError::invalid("layers.name", format!("{name:?} must be 1 to 128 lower-case letters, digits, `-` and `.`")));
        }
        Ok(Self { pci_path, name })
    }

    /// Where it is mounted.
    pub fn target(&self) -> PathBuf {
        Path::new(TARGETS).join(&self.name)
    }
}

fn is_address(address: &str) -> bool {
    let hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    matches!(address.as_bytes(), [high, low, b'.', function] if hex(*high) && hex(*low) && matches!(function, b'0'..=b'7'))
}

/// Mounts it as soon as its device is there.
pub async fn mount(layer: &Layer) -> Result<(), GuestError> {
    let deadline = Instant::now() + APPEARANCE_LIMIT;
    let target = layer.target();
    loop {
        let device = pci_device(Path::new(DEVICES), &layer.pci_path).and_then(|device| block_device(&device, MAX_DEPTH));
        let late = Instant::now() >= deadline;
        match device {
            None if late => {
                let what = format!("memory device at PCI path {} for layer {}", layer.pci_path, layer.name);
                return Err(GuestError::Missing { what });
            }
            None => {}
            Some(device) => match attach_elsewhere(device.clone(), target.clone()).await {
                // A disk shows in sysfs before it can be opened.
                Err(error) if !late && is_not_ready(&error) => {}
                result => return result.map_err(GuestError::io(format!("mount {} at {}", device.display(), target.display()))),
            },
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT | libc::ENODEV))
}

async fn attach_elsewhere(device: PathBuf, target: PathBuf) -> io::Result<()> {
    tokio::task::spawn_blocking(move || attach(&device, &target)).await.map_err(io::Error::from)?
}

fn attach(device: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let mounted = erofs(&device.to_string_lossy(), true)?;
    rustix::mount::move_mount(mounted.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if is_mapped(&fs::read_to_string(MOUNT_TABLE)?, target) {
        return Ok(());
    }
    mounts::unmount_all(target)?;
    Err(io::Error::other("its files cannot be mapped (DAX), and would be copied into the guest's memory"))
}

/// Whether the mount at `target` has kept the option: where the device cannot, EROFS only drops it.
fn is_mapped(table: &str, target: &Path) -> bool {
    let mut mounts = table.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, file_system.split(' ').nth(2)?))
    });
    mounts.any(|(at, options)| Path::new(at) == target && options.split(',').any(|option| option == "dax=always"))
}

/// The directory of the device at a path of PCI addresses. The number of a bus is the kernel's choice: only the device and function are known.
fn pci_device(devices: &Path, pci_path: &str) -> Option<PathBuf> {
    let mut addresses = pci_path.split('/');
    let first = fs::canonicalize(devices.join(format!("0000:00:{}", addresses.next()?))).ok()?;
    addresses.try_fold(first, |bridge, address| {
        let suffix = format!(":{address}");
        let behind = fs::read_dir(bridge).ok()?.flatten().find(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))?;
        Some(behind.path())
    })
}

/// The device node of the first block device below `directory`. What vanishes meanwhile, or leads elsewhere, is not looked into.
fn block_device(directory: &Path, depth: usize) -> Option<PathBuf> {
    if let Some(disk) = fs::read_dir(directory.join("block")).ok().and_then(|mut disks| disks.next()) {
        return Some(Path::new("/dev").join(disk.ok()?.file_name()));
    }
    let depth = depth.checked_sub(1)?;
    let below = fs::read_dir(directory).ok()?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.into_iter().find_map(|entry| block_device(&entry.path(), depth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_and_paths_are_checked() {
        for (port, name) in [("02.3", "sha256-0af"), ("1f.0", "a.b"), ("10.0/01.0", "a")] {
            assert!(Layer::new(port.to_owned(), name.to_owned()).is_ok(), "{port} {name}");
        }
        for (port, name) in [
            ("2.3", "a"),
            ("02.8", "a"),
            ("02:3", "a"),
            ("0G.1", "a"),
            ("", "a"),
            ("02.3", ""),
            ("02.3", "../a"),
            ("02.3", ".."),
            ("10.0/", "a"),
            ("10.0/../01.0", "a"),
        ] {
            assert!(Layer::new(port.to_owned(), name.to_owned()).is_err(), "{port} {name}");
        }
    }

    #[test]
    fn a_mount_that_lost_its_option_is_seen() {
        let table = "\
40 1 259:0 / /run/aurae/layers/a ro,nodev,relatime - erofs /dev/pmem0 ro,user_xattr,acl,dax=always
41 1 259:1 / /run/aurae/layers/b ro,nodev,relatime - erofs /dev/pmem1 ro,user_xattr,acl
";
        assert!(is_mapped(table, Path::new("/run/aurae/layers/a")));
        assert!(!is_mapped(table, Path::new("/run/aurae/layers/b")) && !is_mapped(table, Path::new("/run/aurae/layers")));
    }

    #[test]
    fn the_device_behind_a_bridge() {
        let sys = tempfile::tempdir().unwrap();
        let bridge = sys.path().join("real/0000:00:10.0");
        fs::create_dir_all(bridge.join("0000:02:01.0/virtio3")).unwrap();
        fs::create_dir_all(bridge.join("0000:02:02.0")).unwrap();
        symlink(&bridge, sys.path().join("0000:00:10.0")).unwrap();
        assert_eq!(pci_device(sys.path(), "10.0/01.0"), Some(bridge.canonicalize().unwrap().join("0000:02:01.0")));
        assert_eq!(pci_device(sys.path(), "10.0/03.0"), None);
        assert_eq!(pci_device(sys.path(), "11.0/01.0"), None);
    }

    #[test]
    fn the_disk_of_a_device() {
        let port = tempfile::tempdir().unwrap();
        assert_eq!(block_device(port.path(), MAX_DEPTH), None);
        let region = port.path().join("0000:01:00.0/virtio3/ndbus0/region0");
        fs::create_dir_all(region.join("namespace0.0")).unwrap();
        // A link out of it, as sysfs has many.
        symlink("/sys", region.join("subsystem")).unwrap();
        assert_eq!(block_device(port.path(), MAX_DEPTH), None);
        fs::create_dir_all(region.join("pfn0.0/block/pmem7")).unwrap();
        assert_eq!(block_device(port.path(), MAX_DEPTH), Some(PathBuf::from("/dev/pmem7")));
    }
}
