//! `modprobe`: the guest kernel's request for a module, answered from the module disk.
//!
//! ```text
//!  kernel: request_module("rtnl-link-wireguard") ──► /sbin/modprobe -q -- rtnl-link-wireguard
//!    ──► /sys/block/*/serial says `modules` ──► that disk, EROFS, seen by this process alone
//!    ──► modules.dep, modules.alias, modules.builtin ──► what it needs first, then the module itself
//! ```
//! The exit code is all that the kernel looks at: 0 when the module is there. It then looks for what it missed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::modules::{Catalogue, Plan};
use crate::sys::module;

/// Name of the program that the kernel starts.
pub const PROGRAM: &str = "modprobe";
/// Serial number of the virtio disk that modules are on.
const DISK_SERIAL: &str = "modules";
/// Modules are in a directory of this name.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
enum ModprobeError {
    #[error("usage: modprobe [-q] [--] NAME")]
    Usage,
    #[error("this machine has no disk with the serial `{DISK_SERIAL}`")]
    NoDisk,
    #[error("{0}: no module of this kernel")]
    Unknown(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl ModprobeError {
    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

/// Runs with the arguments after the program's name.
pub fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        // Kernels ask for much that does not exist.
        Err(ModprobeError::Unknown(_)) if args.iter().any(|arg| arg == "-q") => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("modprobe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> Result<(), ModprobeError> {
    let name = args.iter().filter_map(|arg| arg.to_str()).rfind(|arg| !arg.starts_with('-')).ok_or(ModprobeError::Usage)?;
    let release = fs::read_to_string(RELEASE).map_err(|error| ModprobeError::io(RELEASE, error))?.trim_end().to_owned();
    let disk = mount(&find_disk(Path::new("/sys/block"))?)?;
    let catalogue = Catalogue {
        dependencies: read(&disk, &release, "modules.dep")?,
        aliases: read(&disk, &release, "modules.alias")?,
        builtin: read(&disk, &release, "modules.builtin")?,
    };
    match catalogue.plan(name) {
        Plan::Unknown => Err(ModprobeError::Unknown(name.to_owned())),
        Plan::Builtin => Ok(()),
        Plan::Load(files) => files.into_iter().try_for_each(|file| load(&disk, &release, file)),
    }
}

/// The device file of the module disk.
fn find_disk(blocks: &Path) -> Result<PathBuf, ModprobeError> {
    let entries = fs::read_dir(blocks).map_err(|error| ModprobeError::io(blocks.display().to_string(), error))?;
    for entry in entries.flatten() {
        // Most kinds of disks have no such file.
        let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim_end() == DISK_SERIAL {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(ModprobeError::NoDisk)
}

/// Mounted nowhere: it goes with this process, and no container ever sees it.
fn mount(disk: &Path) -> Result<OwnedFd, ModprobeError> {
    let mounted = || {
        let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", disk)?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    mounted().map_err(|error| ModprobeError::io(format!("mount {}", disk.display()), error))
}

fn open(disk: &OwnedFd, release: &str, file: &str) -> Result<File, ModprobeError> {
    let path = format!("{release}/{file}");
    let opened = rustix::fs::openat(disk, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    Ok(opened.map_err(|error| ModprobeError::io(path, error))?.into())
}

fn read(disk: &OwnedFd, release: &str, file: &str) -> Result<String, ModprobeError> {
    let mut text = String::new();
    open(disk, release, file)?.read_to_string(&mut text).map_err(|error| ModprobeError::io(file, error))?;
    Ok(text)
}

fn load(disk: &OwnedFd, release: &str, file: &str) -> Result<(), ModprobeError> {
    match module::load(&open(disk, release, file)?) {
        // Somebody else asked for it too.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(ModprobeError::io(format!("load {file}"), error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{ModprobeError, find_disk, run};
    use std::fs;
    use std::path::Path;

    #[test]
    fn finds_the_disk_by_its_serial() {
        let blocks = tempfile::tempdir().expect("a directory");
        for (name, serial) in [("vda", Some("scratch")), ("vdb", Some("modules")), ("pmem0", None)] {
            fs::create_dir(blocks.path().join(name)).expect("a disk");
            if let Some(serial) = serial {
                fs::write(blocks.path().join(name).join("serial"), serial).expect("a serial");
            }
        }
        assert_eq!(find_disk(blocks.path()).expect("the disk"), Path::new("/dev/vdb"));
        fs::remove_dir_all(blocks.path().join("vdb")).expect("no disk");
        assert!(matches!(find_disk(blocks.path()), Err(ModprobeError::NoDisk)));
    }

    #[test]
    fn wants_a_name() {
        assert!(matches!(run(&["-q".into(), "--".into()]), Err(ModprobeError::Usage)));
    }
}
