//! One sample of a cgroup's counters, the same from v1 and v2.

use std::fs;
use std::path::Path;

use super::container::{ContainerCgroup, counter};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub cpu_ns: u64,
    pub cpu_pressure: Option<Pressure>,
    pub memory: Memory,
    pub process_count: u64,
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

/// Reads everything there is; a file that is missing counts as zero, for a cgroup may go at any moment.
pub fn sample(cgroup: &ContainerCgroup) -> Sample {
    let process_count = cgroup.pids().len() as u64;
    let read = |controller: &str, file: &str| cgroup.controller(controller).and_then(|directory| read(directory, file));
    if cgroup.is_unified() {
        let cpu = read("", "cpu.stat").unwrap_or_default();
        Sample {
            cpu_ns: counter(&cpu, "usage_usec").saturating_mul(1000),
            cpu_pressure: read("", "cpu.pressure").and_then(|text| pressure(&text)),
            memory: memory_v2(|file| read("", file)),
            process_count,
        }
    } else {
        Sample {
            cpu_ns: number(read("cpuacct", "cpuacct.usage")),
            cpu_pressure: None,
            memory: memory_v1(|file| read("memory", file)),
            process_count,
        }
    }
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
        pressure: read("memory.pressure").and_then(|text| pressure(&text)),
    }
}

/// The kernel counts microseconds. An older kernel has no `full` line for CPU.
fn pressure(text: &str) -> Option<Pressure> {
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
        let stat = "cache 900\nrss 1\ntotal_inactive_file 300\ntotal_rss 500\ntotal_pgfault 7\ntotal_pgmajfault 2\n";
        let memory = memory_v1(files(&[
            ("memory.stat", stat),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.memsw.usage_in_bytes", "1200\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
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
            ("memory.pressure", "some avg10=1.50 avg60=0.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"),
        ]));
        assert_eq!((memory.working_set, memory.rss, memory.limit, memory.swap_limit), (0, 400, 0, Some(4096)));
        let pressure = memory.pressure.unwrap();
        assert_eq!(pressure.some, PressureLine { total_ns: 12_000, avg10: 1.5, avg60: 0.25, avg300: 0.0 });
        assert_eq!(pressure.full.total_ns, 3000);
    }
}
