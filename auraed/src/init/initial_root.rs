//! The initial root of a kernel whose drivers are modules: loads what it takes to read a disk, makes the system disk the root and starts
//! auraed anew from there. A kernel with these drivers built in has no such root.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{PROGRAM, named};
use crate::sys::mounts::{self, MsFlags};
use crate::sys::{guest, module};

/// Files to load, in the order of their names.
const MODULES: &str = "/modules";
const DEVICES: &str = "/dev";
/// The system disk, as on the kernel's command line.
const DISK: &str = "/dev/pmem0";
/// Its driver finds it in the background.
const APPEARANCE_LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const ROOT: &str = "/root";

/// Whether it is what we were started from.
pub fn is_here() -> bool {
    Path::new(MODULES).is_dir()
}

/// Never comes back but with the reason.
pub fn leave() -> io::Error {
    match try_to_leave() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_to_leave() -> io::Result<Infallible> {
    let files = named("list the modules", files_in_order(Path::new(MODULES)))?;
    for file in &files {
        named(&format!("load {}", file.display()), File::open(file).and_then(|file| module::load(&file)))?;
    }
    mounts::file_system("devtmpfs", "devtmpfs", Path::new(DEVICES), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=0755")?;
    wait_for(Path::new(DISK))?;
    named(&format!("mount {DISK}"), mounts::file_system("erofs", DISK, Path::new(ROOT), MsFlags::MS_RDONLY, "dax=always"))?;
    mounts::unmount_all(Path::new(DEVICES))?;
    // What is left of this root stays in the guest's memory for good.
    for file in files.iter().map(PathBuf::as_path).chain([Path::new(PROGRAM)]) {
        fs::remove_file(file)?;
    }
    named("make the system disk the root", guest::move_to_root(Path::new(ROOT)))?;
    let program = CString::new(PROGRAM)?;
    let nothing: [&CString; 0] = [];
    Ok(nix::unistd::execve(&program, &[&program], &nothing)?)
}

fn wait_for(device: &Path) -> io::Result<()> {
    let deadline = Instant::now() + APPEARANCE_LIMIT;
    while !device.exists() {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("there is no {}", device.display())));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn files_in_order(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["02-b.ko", "10-a.ko", "01-c.ko"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let names = ["01-c.ko", "02-b.ko", "10-a.ko"].map(|name| directory.path().join(name));
        assert_eq!(files_in_order(directory.path()).unwrap(), names);
    }
}
