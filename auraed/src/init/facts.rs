//! What the daemon wants to know of a guest's kernel.

use std::fs;
use std::path::Path;

use super::errors::GuestError;

const SWAP_LIMIT: &str = "/sys/fs/cgroup/pod/memory.swap.max";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub kernel_release: String,
    pub memory_total_bytes: u64,
    pub cpus: u32,
    /// Bounding set of pid 1.
    pub capabilities: u64,
    pub seccomp: bool,
    pub swap_accounting: bool,
    /// As `2MB`, smallest first.
    pub hugepage_sizes: Vec<String>,
}

impl Facts {
    pub fn read() -> Result<Self, GuestError> {
        let read = |path: &str| fs::read_to_string(path).map_err(GuestError::io(format!("read {path}")));
        let status = read("/proc/self/status")?;
        Ok(Self {
            kernel_release: read("/proc/sys/kernel/osrelease")?.trim_end().to_owned(),
            memory_total_bytes: memory_total_bytes(&read("/proc/meminfo")?),
            cpus: count_cpus(&read("/sys/devices/system/cpu/online")?),
            capabilities: field(&status, "CapBnd").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0),
            seccomp: field(&status, "Seccomp").is_some(),
            swap_accounting: Path::new(SWAP_LIMIT).exists(),
            hugepage_sizes: hugepage_sizes(),
        })
    }
}

/// The value in a file of `NAME: VALUE` lines.
fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn memory_total_bytes(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Of a list of ranges, as `0-1,3`.
fn count_cpus(online: &str) -> u32 {
    let ranges = online.trim_end().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    ranges.sum()
}

fn hugepage_sizes() -> Vec<String> {
    // A kernel without them has no such directory.
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries.filter_map(|entry| hugepage_kib(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(size_name).collect()
}

fn hugepage_kib(directory: &str) -> Option<u64> {
    directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
}

fn size_name(kib: u64) -> String {
    match kib {
        _ if kib.is_multiple_of(1024 * 1024) => format!("{}GB", kib / (1024 * 1024)),
        _ if kib.is_multiple_of(1024) => format!("{}MB", kib / 1024),
        _ => format!("{kib}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_procfs_and_sysfs() {
        assert_eq!(memory_total_bytes("MemTotal:         49308 kB\nMemFree: 1 kB\n"), 49308 * 1024);
        assert_eq!(field("CapBnd:\t000001ffffffffff\nSeccomp:\t0\n", "CapBnd"), Some("000001ffffffffff"));
        assert_eq!(count_cpus("0\n"), 1);
        assert_eq!(count_cpus("0-1,3,5-7\n"), 6);
        assert_eq!(hugepage_kib("hugepages-2048kB").map(size_name), Some("2MB".to_owned()));
        assert_eq!(size_name(1_048_576), "1GB");
        assert_eq!(size_name(64), "64KB");
    }
}
