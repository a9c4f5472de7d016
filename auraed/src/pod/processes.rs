//! What a container's processes hold: descriptors, looked at one by one.

use std::fs;

/// Where looking ends: a container beyond it is known to hold many.
const MAX_DESCRIPTORS: u64 = 200_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    pub open: u64,
    /// Of the open ones.
    pub sockets: u64,
}

/// Of all these processes. One that has ended meanwhile holds none.
pub fn descriptors(pids: &[i32]) -> Descriptors {
    let mut found = Descriptors::default();
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            if found.open >= MAX_DESCRIPTORS {
                return found;
            }
            found.open += 1;
            let target = fs::read_link(entry.path());
            found.sockets += u64::from(target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:[")));
        }
    }
    found
}

/// How many descriptors a process may hold by its soft limit; `None` when it has none, or is gone.
pub fn open_file_limit(pid: i32) -> Option<u64> {
    soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// /proc/PID/limits: columns of fixed width, a name with blanks first.
fn soft_limit(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_this_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = descriptors(&[own]);
        let pair = std::os::unix::net::UnixStream::pair().unwrap();
        let after = descriptors(&[own, i32::MAX]);
        // Other tests open and close theirs meanwhile.
        assert!(after.sockets >= 2 && after.open > after.sockets, "{before:?} {after:?}");
        drop(pair);
    }

    #[test]
    fn the_limit_of_open_files() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             unlimited            unlimited            processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(soft_limit("Max open files            unlimited            unlimited            files     \n"), None);
    }
}
