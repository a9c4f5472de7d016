//! Limits of the pod as a whole: its cgroup, above those of its containers.

use std::fs;
use std::path::Path;

use super::errors::GuestError;

/// What is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// 0: none.
    pub memory_bytes: Option<u64>,
    pub cpu: Option<CpuLimit>,
}

/// So much time in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuLimit {
    /// 0: none.
    pub quota_us: u64,
    pub period_us: u64,
}

/// Writes them to a v2 cgroup. After a failure it is as it was.
pub fn apply(cgroup: &Path, limits: Limits) -> Result<(), GuestError> {
    let memory_max = cgroup.join("memory.max");
    let before = read(&memory_max)?;
    if let Some(wanted) = limits.memory_bytes {
        let used = read(&cgroup.join("memory.current"))?.trim().parse().unwrap_or(0);
        // The kernel would take it back from whoever has it, by killing.
        if wanted != 0 && used > wanted {
            return Err(GuestError::InUse { used, wanted });
        }
        write(&memory_max, &or_max(wanted))?;
    }
    let Some(cpu) = limits.cpu else { return Ok(()) };
    write(&cgroup.join("cpu.max"), &format!("{} {}", or_max(cpu.quota_us), cpu.period_us)).inspect_err(|_| {
        if let Err(error) = write(&memory_max, before.trim()) {
            tracing::error!(%error, "the pod's memory limit is not what it was");
        }
    })
}

fn or_max(limit: u64) -> String {
    if limit == 0 { "max".to_owned() } else { limit.to_string() }
}

fn read(file: &Path) -> Result<String, GuestError> {
    fs::read_to_string(file).map_err(GuestError::io(format!("read {}", file.display())))
}

fn write(file: &Path, text: &str) -> Result<(), GuestError> {
    fs::write(file, text).map_err(GuestError::io(format!("write {text:?} to {}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_together_or_not_at_all() {
        let cgroup = tempfile::tempdir().unwrap();
        let file = |name: &str| cgroup.path().join(name);
        for (name, text) in [("memory.max", "max\n"), ("memory.current", "1000\n"), ("cpu.max", "max 100000\n")] {
            fs::write(file(name), text).unwrap();
        }
        let seen = || (fs::read_to_string(file("memory.max")).unwrap(), fs::read_to_string(file("cpu.max")).unwrap());
        let cpu = Some(CpuLimit { quota_us: 50_000, period_us: 100_000 });
        apply(cgroup.path(), Limits { memory_bytes: Some(4096), cpu }).unwrap();
        assert_eq!(seen(), ("4096".to_owned(), "50000 100000".to_owned()));
        apply(cgroup.path(), Limits { memory_bytes: None, cpu: Some(CpuLimit { quota_us: 0, period_us: 100_000 }) }).unwrap();
        assert_eq!(seen(), ("4096".to_owned(), "max 100000".to_owned()));
        let refused = apply(cgroup.path(), Limits { memory_bytes: Some(999), cpu }).unwrap_err();
        assert!(matches!(refused, GuestError::InUse { used: 1000, wanted: 999 }), "{refused}");
        assert_eq!(seen(), ("4096".to_owned(), "max 100000".to_owned()));
        fs::remove_file(file("cpu.max")).unwrap();
        fs::create_dir(file("cpu.max")).unwrap();
        apply(cgroup.path(), Limits { memory_bytes: Some(0), cpu }).unwrap_err();
        assert_eq!(fs::read_to_string(file("memory.max")).unwrap(), "4096");
    }
}
