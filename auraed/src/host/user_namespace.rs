//! `try-user-namespace`: whether this kernel and this directory allow pods with a user namespace.
//!
//! Tried on a tmpfs that nobody else sees: an overlay over a layer with mapped ids, as a container's root file system has it. And root of
//! the user namespace goes to the directory where pods are kept, as it must for the container's mounts.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::HostError;
use crate::idmap::{IdMapping, UserNamespace};
use crate::rootfs::overlay;
use crate::sys::namespace::{self, Kinds};
use crate::sys::{fd, mounts};

/// Any range that is not the host's root.
const MAPPING: IdMapping = IdMapping { container_id: 0, host_id: 1 << 20, size: 1 << 16 };

/// Success when all of it works.
pub fn attempt(dir: &Path) -> Result<(), HostError> {
    let (told, tell) = fd::pipe().map_err(|error| HostError::io("make a pipe for", dir, error))?;
    let (hears, say) = fd::pipe().map_err(|error| HostError::io("make a pipe for", dir, error))?;
    match namespace::fork_single_threaded().map_err(|error| HostError::io("fork for", dir, error))? {
        namespace::Fork::Child => {
            drop((told, say));
            let made = namespace::make(Kinds { user: true, ..Kinds::default() }).is_ok();
            let _ = fd::write(tell.as_fd(), &[u8::from(made)]);
            let mapped = made && fd::read(hears.as_fd(), &mut [0]).is_ok_and(|count| count > 0);
            let reached = mapped && namespace::become_namespace_root().is_ok() && fs::metadata(dir.join(".")).is_ok();
            std::process::exit(i32::from(!reached));
        }
        namespace::Fork::Parent { child } => {
            drop((tell, hears));
            let result = examine(dir, child, || {
                let mut made = [0];
                let _ = fd::read(told.as_fd(), &mut made);
                made == [1]
            });
            if result.is_ok() {
                let _ = fd::write(say.as_fd(), &[1]);
            }
            drop(say);
            let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
            result?;
            match ended {
                Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => Ok(()),
                _ => Err(state(
                    dir,
                    "is not reachable for others: each directory above it needs the permission to be passed through (chmod o+x)",
                )),
            }
        }
    }
}

/// While the child waits in its new user namespace.
fn examine(dir: &Path, child: i32, made: impl FnOnce() -> bool) -> Result<(), HostError> {
    if !made() {
        return Err(state(Path::new("/proc/sys/user/max_user_namespaces"), "no user namespace can be made: raise it"));
    }
    for file in ["uid_map", "gid_map"] {
        let path = PathBuf::from(format!("/proc/{child}/{file}"));
        let line = format!("{} {} {}\n", MAPPING.container_id, MAPPING.host_id, MAPPING.size);
        fs::write(&path, line).map_err(|error| HostError::io("write", &path, error))?;
    }
    let users = UserNamespace { path: format!("/proc/{child}/ns/user").into(), uid_mappings: vec![MAPPING], gid_mappings: vec![MAPPING] };
    let tried = namespace::in_private_mounts(|| try_overlay(dir, &users));
    tried.map_err(|error| HostError::io("use an id-mapped layer (Linux 6.5 is needed) on a tmpfs at", dir, error))
}

fn try_overlay(dir: &Path, users: &UserNamespace) -> io::Result<()> {
    mounts::small_tmpfs(dir, MsFlags::empty(), "size=64k,mode=0711")?;
    let [layer, scratch, target] = ["layer", "scratch", "rootfs"].map(|name| dir.join(name));
    fs::create_dir(&layer)?;
    File::create(layer.join("file"))?;
    overlay::mount(&[layer], &scratch, &target, Some(users)).map_err(io::Error::other)?;
    let owner = fs::metadata(target.join("file"))?.uid();
    if owner == MAPPING.host_id { Ok(()) } else { Err(io::Error::other(format!("a file of uid 0 is shown as {owner}'s"))) }
}

fn state(path: &Path, reason: &str) -> HostError {
    HostError::State { path: path.to_owned(), reason: reason.to_owned() }
}
