//! Loop devices, for kernels that mount EROFS from block devices alone.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::HostError;
use crate::sys::loop_control;

/// Another process may take the free device we were told of: so often we ask again.
const MAX_TRIES: usize = 32;

/// A read-only loop device that vanishes when its last user does.
pub struct LoopDevice {
    pub path: String,
    /// Open until the file system has the device.
    _device: File,
}

impl LoopDevice {
    pub fn attach(backing: &File, path: &Path) -> Result<Self, HostError> {
        let control_path = Path::new("/dev/loop-control");
        let control =
            OpenOptions::new().read(true).write(true).open(control_path).map_err(|error| HostError::io("open", control_path, error))?;
        let mut last = None;
        for _ in 0..MAX_TRIES {
            let number = loop_control::free(&control).map_err(|error| HostError::io("find a loop device through", control_path, error))?;
            let name = format!("/dev/loop{number}");
            let device = File::open(&name).map_err(|error| HostError::io("open", Path::new(&name), error))?;
            match loop_control::configure(&device, backing) {
                Ok(()) => return Ok(Self { path: name, _device: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = Some(error),
                Err(error) => return Err(HostError::io("attach a loop device to", path, error)),
            }
        }
        let error = last.unwrap_or_else(|| std::io::ErrorKind::ResourceBusy.into());
        Err(HostError::io("attach a loop device to", path, error))
    }

    /// Whether the device `source` (as `/dev/loopN`) is backed by `blob`.
    pub fn is_of(source: &Path, blob: &File) -> bool {
        let Some(name) = source.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("loop")) else {
            return false;
        };
        let Ok(backing) = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")) else { return false };
        match (fs::metadata(backing.trim_end()), blob.metadata()) {
            (Ok(backing), Ok(blob)) => (backing.dev(), backing.ino()) == (blob.dev(), blob.ino()),
            _ => false,
        }
    }
}
