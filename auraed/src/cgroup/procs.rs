//! The processes of a cgroup and of those below it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CgroupError;
use crate::sys::process;

/// Rounds of killing before a cgroup counts as unkillable (tasks stuck in the kernel).
const KILL_ROUNDS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// Directories below and including `root`, children before parents. Missing: none.
pub fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(root, &mut found);
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
    found.push(directory.to_owned());
}

/// Every process in `root` and below. A cgroup that is gone has none.
pub fn pids(root: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for directory in tree(root) {
        if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        }
    }
    found
}

/// Sends `signal` to every process in `root` and below, once.
pub fn signal_all(root: &Path, signal: i32) {
    for pid in pids(root) {
        process::send_signal(pid, signal);
    }
}

/// Kills everything in `root` and below and waits until nothing is left there. `false` when something would not die.
pub async fn kill_all(root: &Path) -> bool {
    for round in 0..KILL_ROUNDS {
        let v2_kill = root.join("cgroup.kill");
        if !(v2_kill.exists() && fs::write(&v2_kill, "1").is_ok()) {
            signal_all(root, nix::libc::SIGKILL);
        }
        if pids(root).is_empty() {
            return true;
        }
        tokio::time::sleep(if round < 5 { Duration::from_millis(1) } else { KILL_PAUSE }).await;
    }
    false
}

/// Puts a process into a cgroup.
pub fn join(directory: &Path, pid: i32) -> Result<(), CgroupError> {
    fs::write(directory.join("cgroup.procs"), pid.to_string()).map_err(|source| CgroupError::io(directory, "join", source))
}

/// Removes `root` and what is below it. Cgroups with processes stay, and that is an error.
pub fn remove_tree(root: &Path) -> Result<(), CgroupError> {
    for directory in tree(root) {
        remove(&directory)?;
    }
    Ok(())
}

/// Removes one cgroup; success when it is gone already. A process that has just exited may keep it for a moment.
pub fn remove(directory: &Path) -> Result<(), CgroupError> {
    let mut attempts = 0;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && attempts < 20 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(CgroupError::io(directory, "remove", error)),
        }
    }
}
