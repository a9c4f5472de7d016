//! What a cgroup says of block devices, huge pages and threads, the same from v1 and v2.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::container::ContainerCgroup;
use super::stats::{Pressure, pressure};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    pub devices: Vec<Device>,
    pub io_pressure: Option<Pressure>,
    pub hugetlb: Vec<Hugetlb>,
    pub threads: Option<u64>,
    /// 0: none.
    pub thread_limit: Option<u64>,
    pub oom_kills: u64,
}

/// What was read from and written to a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugetlb {
    /// As the kernel spells it: `2MB`.
    pub page_size: String,
    pub usage: u64,
    pub max_usage: Option<u64>,
}

/// Reads everything there is; a file that is missing is a figure that is missing.
pub fn detail(cgroup: &ContainerCgroup) -> Detail {
    let read = |controller: &str, file: &str| fs::read_to_string(cgroup.controller(controller)?.join(file)).ok();
    let devices = if cgroup.is_unified() {
        read("io", "io.stat").map(|text| devices_v2(&text))
    } else {
        // The plain files count the cgroup alone, without those below it.
        let file = |name: &str| read("blkio", &format!("{name}_recursive")).or_else(|| read("blkio", name)).unwrap_or_default();
        Some(devices_v1(&file("blkio.throttle.io_service_bytes"), &file("blkio.throttle.io_serviced")))
    };
    Detail {
        devices: devices.unwrap_or_default(),
        io_pressure: cgroup.pressure("io").and_then(|text| pressure(&text)),
        hugetlb: cgroup.controller("hugetlb").map(hugetlb).unwrap_or_default(),
        threads: read("pids", "pids.current").and_then(|text| text.trim().parse().ok()),
        // "max" is no number: no limit.
        thread_limit: read("pids", "pids.max").map(|text| text.trim().parse().unwrap_or(0)),
        oom_kills: cgroup.oom_kills().unwrap_or(0),
    }
}

/// `MAJOR:MINOR rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn devices_v2(text: &str) -> Vec<Device> {
    let devices = text.lines().filter_map(|line| {
        let (number, fields) = line.split_once(' ')?;
        let (major, minor) = device_number(number)?;
        let field = |name: &str| fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap_or(0);
        Some(Device {
            major,
            minor,
            read_bytes: field("rbytes"),
            write_bytes: field("wbytes"),
            reads: field("rios"),
            writes: field("wios"),
        })
    });
    devices.collect()
}

/// Lines of `MAJOR:MINOR OPERATION COUNT`, and one with the total.
fn devices_v1(bytes: &str, operations: &str) -> Vec<Device> {
    let mut devices = BTreeMap::new();
    for (text, of_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (Some(number), Some(operation), Some(count)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let (Some((major, minor)), Ok(count)) = (device_number(number), count.parse::<u64>()) else { continue };
            let device = devices.entry((major, minor)).or_insert(Device { major, minor, ..Device::default() });
            match (operation, of_bytes) {
                ("Read", true) => device.read_bytes = count,
                ("Write", true) => device.write_bytes = count,
                ("Read", false) => device.reads = count,
                ("Write", false) => device.writes = count,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// One per size that the kernel knows. v2 keeps no maximum.
fn hugetlb(directory: &Path) -> Vec<Hugetlb> {
    let mut found: Vec<Hugetlb> = fs::read_dir(directory)
        .map(|entries| entries.flatten().filter_map(|entry| one_size(directory, &entry.file_name().to_string_lossy())).collect())
        .unwrap_or_default();
    found.sort_by(|a, b| a.page_size.cmp(&b.page_size));
    found
}

fn one_size(directory: &Path, file: &str) -> Option<Hugetlb> {
    let size = file.strip_prefix("hugetlb.")?;
    let (page_size, maximum) = match size.strip_suffix(".current") {
        Some(page_size) => (page_size, None),
        None => {
            size.strip_suffix(".usage_in_bytes").map(|page_size| (page_size, Some(format!("hugetlb.{page_size}.max_usage_in_bytes"))))?
        }
    };
    // `rsvd` counts what is reserved, not what is used.
    if page_size.contains('.') {
        return None;
    }
    let number = |file: &str| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok();
    Some(Hugetlb { page_size: page_size.to_owned(), usage: number(file)?, max_usage: maximum.and_then(|file| number(&file)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_both_versions() {
        let expected = Device { major: 254, minor: 0, read_bytes: 4096, write_bytes: 8192, reads: 1, writes: 2 };
        assert_eq!(devices_v2("254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n")[0], expected);
        let bytes = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Total 12288\nTotal 12288\n";
        assert_eq!(devices_v1(bytes, "254:0 Read 1\n254:0 Write 2\nTotal 3\n"), [expected]);
        assert_eq!(devices_v1("Total 0\n", ""), []);
    }

    #[test]
    fn huge_pages_of_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("hugetlb.2MB.current", "2097152\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.1GB.usage_in_bytes", "0\n"),
            ("hugetlb.1GB.max_usage_in_bytes", "1073741824\n"),
            ("hugetlb.1GB.rsvd.usage_in_bytes", "0\n"),
        ] {
            fs::write(directory.path().join(file), text).unwrap();
        }
        let expected = [
            Hugetlb { page_size: "1GB".to_owned(), usage: 0, max_usage: Some(1 << 30) },
            Hugetlb { page_size: "2MB".to_owned(), usage: 2 << 20, max_usage: None },
        ];
        assert_eq!(hugetlb(directory.path()), expected);
    }
}
