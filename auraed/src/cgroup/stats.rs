//! One sample of a cgroup's counters, the same from v1 and v2.

use std::fs;
use std::path::Path;

use super::container::{ContainerCgroup, counter, figure};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub cpu: Cpu,
    pub memory: Memory,
    pub process_count: u64,
}

/// Here and in `Memory`: what is `None` this kernel does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    pub usage_ns: u64,
    pub user_ns: Option<u64>,
    pub system_ns: Option<u64>,
    pub throttling: Option<Throttling>,
    pub pressure: Option<Pressure>,
}

/// Periods of the quota, and how often and how long it held tasks back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub usage: u64,
    /// Usage less inactive file pages.
    pub working_set: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// 0: none.
    pub limit: u64,
    pub swap_usage: Option<u64>,
    pub swap_limit: Option<u64>,
    pub pressure: Option<Pressure>,
    pub cache: Option<u64>,
    pub mapped_file: Option<u64>,
    pub kernel: Option<u64>,
    pub max_usage: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: Option<u64>,
    /// 0: none.
    pub reservation: Option<u64>,
}

/// Time in which tasks waited: some of them, and all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: PressureLine,
    pub full: PressureLine,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PressureLine {
    pub total_ns: u64,
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

/// Reads everything there is; of what every kernel has a missing file counts as zero, for a cgroup may go at any moment.
pub fn sample(cgroup: &ContainerCgroup) -> Sample {
    let process_count = cgroup.pids().len() as u64;
    let read = |controller: &str, file: &str| cgroup.controller(controller).and_then(|directory| read(directory, file));
    let (mut cpu, mut memory) = if cgroup.is_unified() {
        (cpu_v2(|file| read("", file)), memory_v2(|file| read("", file)))
    } else {
        let cpu = cpu_v1(|file| read(if file == "cpu.stat" { "cpu" } else { "cpuacct" }, file));
        (cpu, memory_v1(|file| read("memory", file)))
    };
    cpu.pressure = cgroup.pressure("cpu").and_then(|text| pressure(&text));
    memory.pressure = cgroup.pressure("memory").and_then(|text| pressure(&text));
    Sample { cpu, memory, process_count }
}

fn read(directory: &Path, file: &str) -> Option<String> {
    fs::read_to_string(directory.join(file)).ok()
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// v1's "no limit" is the largest multiple of the page size.
fn v1_limit(value: u64) -> u64 {
    if value >= (i64::MAX as u64) & !0xffff { 0 } else { value }
}

fn cpu_v1(read: impl Fn(&str) -> Option<String>) -> Cpu {
    let stat = read("cpu.stat").unwrap_or_default();
    Cpu {
        usage_ns: number(read("cpuacct.usage")),
        user_ns: read("cpuacct.usage_user").map(|text| number(Some(text))),
        system_ns: read("cpuacct.usage_sys").map(|text| number(Some(text))),
        throttling: throttling(&stat, "throttled_time", 1),
        pressure: None,
    }
}

fn cpu_v2(read: impl Fn(&str) -> Option<String>) -> Cpu {
    let stat = read("cpu.stat").unwrap_or_default();
    let ns = |key: &str| figure(&stat, key).map(|us| us.saturating_mul(1000));
    Cpu {
        usage_ns: ns("usage_usec").unwrap_or(0),
        user_ns: ns("user_usec"),
        system_ns: ns("system_usec"),
        throttling: throttling(&stat, "throttled_usec", 1000),
        pressure: None,
    }
}

/// `unit`: nanoseconds of what `time` counts.
fn throttling(stat: &str, time: &str, unit: u64) -> Option<Throttling> {
    Some(Throttling {
        periods: figure(stat, "nr_periods")?,
        throttled_periods: figure(stat, "nr_throttled")?,
        throttled_ns: figure(stat, time)?.saturating_mul(unit),
    })
}

fn memory_v1(read: impl Fn(&str) -> Option<String>) -> Memory {
    let stat = read("memory.stat").unwrap_or_default();
    let usage = number(read("memory.usage_in_bytes"));
    let limit = v1_limit(number(read("memory.limit_in_bytes")));
    let with_swap = read("memory.memsw.usage_in_bytes").map(|text| number(Some(text)));
    let with_swap_limit = read("memory.memsw.limit_in_bytes").map(|text| v1_limit(number(Some(text))));
    Memory {
        usage,
        working_set: usage.saturating_sub(counter(&stat, "total_inactive_file")),
        rss: counter(&stat, "total_rss"),
        page_faults: counter(&stat, "total_pgfault"),
        major_page_faults: counter(&stat, "total_pgmajfault"),
        limit,
        swap_usage: with_swap.map(|both| both.saturating_sub(usage)),
        swap_limit: with_swap_limit.map(|both| both.saturating_sub(limit)),
        pressure: None,
        cache: figure(&stat, "total_cache"),
        mapped_file: figure(&stat, "total_mapped_file"),
        kernel: read("memory.kmem.usage_in_bytes").map(|text| number(Some(text))),
        max_usage: read("memory.max_usage_in_bytes").map(|text| number(Some(text))),
        limit_hits: read("memory.failcnt").map(|text| number(Some(text))),
        reservation: read("memory.soft_limit_in_bytes").map(|text| v1_limit(number(Some(text)))),
    }
}

fn memory_v2(read: impl Fn(&str) -> Option<String>) -> Memory {
    let stat = read("memory.stat").unwrap_or_default();
    let usage = number(read("memory.current"));
    Memory {
        usage,
        working_set: usage.saturating_sub(counter(&stat, "inactive_file")),
        rss: counter(&stat, "anon"),
        page_faults: counter(&stat, "pgfault"),
        major_page_faults: counter(&stat, "pgmajfault"),
        // "max" is no number: no limit.
        limit: number(read("memory.max")),
        swap_usage: read("memory.swap.current").map(|text| number(Some(text))),
        swap_limit: read("memory.swap.max").map(|text| number(Some(text))),
        pressure: None,
        cache: figure(&stat, "file"),
        mapped_file: figure(&stat, "file_mapped"),
        kernel: figure(&stat, "kernel"),
        max_usage: read("memory.peak").map(|text| number(Some(text))),
        limit_hits: read("memory.events").and_then(|text| figure(&text, "max")),
        reservation: read("memory.min").map(|text| number(Some(text))),
    }
}

/// The kernel counts microseconds. An older kernel has no `full` line for CPU.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(pressure_line);
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

fn pressure_line(fields: &str) -> PressureLine {
    let field = |name: &str| fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let average = |name: &str| field(name).and_then(|value| value.parse().ok()).unwrap_or(0.0);
    PressureLine {
        total_ns: field("total").and_then(|value| value.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1000),
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<'a>(table: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| table.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
    }

    #[test]
    fn memory_of_v1() {
        let stat = "cache 900\nrss 1\ntotal_inactive_file 300\ntotal_rss 500\ntotal_pgfault 7\ntotal_pgmajfault 2\ntotal_cache 800\n";
        let memory = memory_v1(files(&[
            ("memory.stat", stat),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.memsw.usage_in_bytes", "1200\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("memory.kmem.usage_in_bytes", "64\n"),
            ("memory.failcnt", "3\n"),
            ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
        ]));
        let expected = Memory {
            usage: 1000,
            working_set: 700,
            rss: 500,
            page_faults: 7,
            major_page_faults: 2,
            limit: 0,
            swap_usage: Some(200),
            swap_limit: Some(0),
            pressure: None,
            cache: Some(800),
            mapped_file: None,
            kernel: Some(64),
            max_usage: None,
            limit_hits: Some(3),
            reservation: Some(0),
        };
        assert_eq!(memory, expected);
    }

    #[test]
    fn memory_of_v2() {
        let memory = memory_v2(files(&[
            ("memory.stat", "anon 400\nfile 100\ninactive_file 5000\npgfault 9\npgmajfault 1\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "4096\n"),
            ("memory.peak", "2000\n"),
            ("memory.events", "low 0\nhigh 0\nmax 5\noom 0\n"),
            ("memory.min", "7\n"),
        ]));
        assert_eq!((memory.working_set, memory.rss, memory.limit, memory.swap_limit), (0, 400, 0, Some(4096)));
        assert_eq!((memory.cache, memory.mapped_file, memory.kernel), (Some(100), None, None));
        assert_eq!((memory.max_usage, memory.limit_hits, memory.reservation), (Some(2000), Some(5), Some(7)));
    }

    #[test]
    fn cpu_of_both_versions() {
        let throttling = Some(Throttling { periods: 10, throttled_periods: 2, throttled_ns: 5000 });
        let v2 =
            cpu_v2(files(&[("cpu.stat", "usage_usec 9\nuser_usec 6\nsystem_usec 3\nnr_periods 10\nnr_throttled 2\nthrottled_usec 5\n")]));
        assert_eq!(v2, Cpu { usage_ns: 9000, user_ns: Some(6000), system_ns: Some(3000), throttling, pressure: None });
        let v1 = cpu_v1(files(&[("cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_time 5000\n"), ("cpuacct.usage", "9\n")]));
        assert_eq!(v1, Cpu { usage_ns: 9, user_ns: None, system_ns: None, throttling, pressure: None });
    }

    #[test]
    fn pressure_in_nanoseconds() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let pressure = pressure(text).unwrap();
        assert_eq!(pressure.some, PressureLine { total_ns: 12_000, avg10: 1.5, avg60: 0.25, avg300: 0.0 });
        assert_eq!(pressure.full.total_ns, 3000);
    }
}
