//! The cgroups of a pod, in every hierarchy they exist in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{HostError, mount_table};

/// How long the processes of one pod may take to die, and its cgroups to become empty.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// A cgroup nested deeper than this is left: only somebody hostile makes one.
const MAX_DEPTH: usize = 64;

/// Mount points of all cgroup file systems, each hierarchy once.
pub fn hierarchies() -> Result<Vec<PathBuf>, HostError> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for mount in mount_table::read()? {
        if mount.fs_type.starts_with("cgroup") && mount.target.starts_with("/sys/fs/cgroup") && !roots.contains(&mount.target) {
            roots.push(mount.target);
        }
    }
    Ok(roots)
}

/// Where the cgroup `name` is, in each hierarchy that has it. `name` is a path below a hierarchy's root, or the full path of one.
pub fn locate(roots: &[PathBuf], name: &Path) -> Result<Vec<PathBuf>, HostError> {
    let inside = roots.iter().filter_map(|root| name.strip_prefix(root).ok()).min_by_key(|rest| rest.as_os_str().len());
    let inside = inside.or_else(|| name.strip_prefix("/").ok()).unwrap_or(name);
    if inside.as_os_str().is_empty() {
        return Err(HostError::Usage(format!("--cgroup {} is a whole hierarchy, not a pod's cgroup", name.display())));
    }
    Ok(roots.iter().map(|root| root.join(inside)).filter(|path| path.join("cgroup.procs").exists()).collect())
}

/// Kills every process at and below the cgroup and waits until it is empty. Answers how many were met.
pub fn kill_all(cgroup: &Path) -> Result<usize, HostError> {
    let began = Instant::now();
    let mut met = 0;
    loop {
        let mut pids = Vec::new();
        for dir in tree(cgroup) {
            pids.extend(processes(&dir)?);
        }
        // Our own cgroup is never a pod's; signalling ourselves would leave the rest undone.
        if pids.contains(&std::process::id().cast_signed()) {
            return Err(HostError::State { path: cgroup.to_owned(), reason: "holds this process itself".into() });
        }
        if pids.is_empty() {
            return Ok(met);
        }
        if began.elapsed() > PATIENCE {
            return Err(HostError::StillAlive { path: cgroup.to_owned(), count: pids.len(), waited_ms: began.elapsed().as_millis() });
        }
        met = met.max(pids.len());
        kill_round(cgroup, &pids);
        sleep(PAUSE);
    }
}

/// One blow at once where the kernel has `cgroup.kill`; else frozen first, so that nothing forks away meanwhile.
fn kill_round(cgroup: &Path, pids: &[i32]) {
    if fs::write(cgroup.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Every failure here shows in the next round: the process is still there.
    let freezer = cgroup.join("freezer.state");
    let frozen = fs::write(&freezer, "FROZEN").is_ok();
    let everyone: Vec<i32> =
        if frozen { tree(cgroup).iter().filter_map(|dir| processes(dir).ok()).flatten().collect() } else { pids.to_vec() };
    for pid in everyone.into_iter().filter(|pid| *pid > 1) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for dir in tree(cgroup) {
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
    }
}

/// Removes the cgroup and its children. One that is busy for a moment after its last process ended is tried again.
pub fn remove(cgroup: &Path) -> Result<(), HostError> {
    let began = Instant::now();
    loop {
        let mut failed = None;
        for dir in tree(cgroup).iter().rev() {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(HostError::io("remove", dir, error)),
                _ => {}
            }
        }
        match failed {
            None => return Ok(()),
            Some(error) if began.elapsed() > PATIENCE => return Err(error),
            Some(_) => sleep(PAUSE),
        }
    }
}

/// The cgroup and all below it, parents first. What vanishes meanwhile is left out.
fn tree(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(cgroup.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        if let Ok(entries) = fs::read_dir(&dir)
            && depth < MAX_DEPTH
        {
            let inner = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(inner.map(|entry| (entry.path(), depth + 1)));
        }
        found.push(dir);
    }
    found
}

fn processes(cgroup: &Path) -> Result<Vec<i32>, HostError> {
    match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // Gone, or a threaded cgroup whose processes its parent lists.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        Err(error) => Err(HostError::io("read the processes of", cgroup, error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Files stand in for the kernel's: the paths are what is tested, for v2 and v1 alike.
    #[test]
    fn a_cgroup_is_found_in_every_hierarchy_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let roots: Vec<_> = ["memory", "pids", "unified"].iter().map(|name| dir.path().join(name)).collect();
        for root in &roots[..2] {
            fs::create_dir_all(root.join("pods/one")).unwrap();
            fs::write(root.join("pods/one/cgroup.procs"), "").unwrap();
        }
        let expected: Vec<_> = roots[..2].iter().map(|root| root.join("pods/one")).collect();
        assert_eq!(locate(&roots, Path::new("/pods/one")).unwrap(), expected);
        assert_eq!(locate(&roots, &roots[1].join("pods/one")).unwrap(), expected);
        assert_eq!(locate(&roots, Path::new("/pods/other")).unwrap(), Vec::<PathBuf>::new());
        assert!(locate(&roots, &roots[0]).is_err());
        assert!(locate(&roots, Path::new("/")).is_err());
    }

    #[test]
    fn systemd_slices_are_paths_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/aurae-x.scope";
        fs::create_dir_all(dir.path().join(slice)).unwrap();
        fs::write(dir.path().join(slice).join("cgroup.procs"), "").unwrap();
        let roots = [dir.path().to_owned()];
        assert_eq!(locate(&roots, &Path::new("/").join(slice)).unwrap(), [dir.path().join(slice)]);
    }
}
