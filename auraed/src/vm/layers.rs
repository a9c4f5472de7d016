//! Making a layer's file visible in QEMU's root while QEMU runs.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use tokio::sync::oneshot;

use super::vmm::LAYERS;
use crate::sys::mounts::{self, Rights};
use crate::sys::namespace;

const STACK_BYTES: usize = 128 * 1024;

/// Carries a bind mount of `host_path` to `/layers/NAME` of the process's root, read-only. Nothing of it is mounted on the host.
pub async fn expose(pid: i32, host_path: PathBuf, name: String) -> std::io::Result<()> {
    let (reply, answer) = oneshot::channel();
    // A thread that goes to another mount namespace does not come back.
    thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // Nobody may be waiting any more.
        let _ = reply.send(carry(pid, &host_path, &name));
    })?;
    answer.await.map_err(std::io::Error::other)?
}

fn carry(pid: i32, host_path: &Path, name: &str) -> std::io::Result<()> {
    if !host_path.metadata()?.is_file() {
        return Err(std::io::Error::other("is not a file"));
    }
    let tree = mounts::detached(host_path)?;
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    namespace::enter_mounts(namespace.as_fd())?;
    let target = Path::new(LAYERS).join(name);
    File::options().write(true).create(true).truncate(false).open(&target)?;
    mounts::attach(tree.as_fd(), &target)?;
    mounts::limit(&target, Rights::ReadOnly)
}
