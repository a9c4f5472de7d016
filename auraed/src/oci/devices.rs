//! Device rules on cgroup v2, where they are a BPF program on the container's cgroup. (On v1 libcontainer writes them.)
//!
//! The rules mean what they mean to the v1 controller: a rule for all devices sets the default and forgets the rest, any
//! other adds to or takes from the exceptions. The program is attached between create and start, before code of the image runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::sys::bpf::{self, Instruction};

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const EVERYTHING: u8 = MKNOD | READ | WRITE;

/// Block and character as the kernel numbers them for the program.
const BLOCK: u8 = 1;
const CHARACTER: u8 = 2;

/// What every container may use, beside its own rules: making nodes, and the character devices of a plain /dev.
const ALWAYS: &[(u8, Option<u32>, Option<u32>, u8)] = &[
    (CHARACTER, None, None, MKNOD),
    (BLOCK, None, None, MKNOD),
    (CHARACTER, Some(1), Some(3), EVERYTHING),
    (CHARACTER, Some(1), Some(5), EVERYTHING),
    (CHARACTER, Some(1), Some(7), EVERYTHING),
    (CHARACTER, Some(1), Some(8), EVERYTHING),
    (CHARACTER, Some(1), Some(9), EVERYTHING),
    (CHARACTER, Some(5), Some(0), EVERYTHING),
    (CHARACTER, Some(5), Some(1), EVERYTHING),
    (CHARACTER, Some(5), Some(2), EVERYTHING),
    (CHARACTER, Some(136), None, EVERYTHING),
];

/// A kind, and numbers; none means every.
type Device = (u8, Option<u32>, Option<u32>);

/// What the v1 controller would hold after the same rules.
#[derive(Debug, Default, PartialEq)]
struct Policy {
    allowed_by_default: bool,
    /// Accesses for which the opposite of the default holds.
    exceptions: BTreeMap<Device, u8>,
}

impl Policy {
    fn from_rules(rules: &[LinuxDeviceCgroup]) -> Self {
        let mut policy = Self::default();
        for rule in rules {
            policy.apply(rule);
        }
        for &(kind, major, minor, access) in ALWAYS {
            policy.change(true, (kind, major, minor), access);
        }
        policy
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) {
        let access = rule.access().as_deref().map_or(EVERYTHING, access_bits);
        let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        let (major, minor) = (number(rule.major()), number(rule.minor()));
        let kinds: &[u8] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == EVERYTHING => {
                *self = Self { allowed_by_default: rule.allow(), exceptions: BTreeMap::new() };
                return;
            }
            LinuxDeviceType::A => &[BLOCK, CHARACTER],
            LinuxDeviceType::B => &[BLOCK],
            LinuxDeviceType::C | LinuxDeviceType::U => &[CHARACTER],
            // A pipe is no device.
            LinuxDeviceType::P => &[],
        };
        for &kind in kinds {
            self.change(rule.allow(), (kind, major, minor), access);
        }
    }

    fn change(&mut self, allow: bool, device: Device, access: u8) {
        let excepted = self.exceptions.entry(device).or_default();
        if allow == self.allowed_by_default {
            *excepted &= !access;
        } else {
            *excepted |= access;
        }
        self.exceptions.retain(|_, access| *access != 0);
    }

    /// The program: 1 allows, 0 refuses.
    fn program(&self) -> Vec<Instruction> {
        let mut program = bpf::load_device_request();
        for (&(kind, major, minor), &access) in &self.exceptions {
            let mut block = vec![bpf::unless_kind(kind)];
            // An exception that allows must cover all that is asked for, one that refuses any of it.
            block.extend(match self.allowed_by_default {
                true => bpf::unless_any_access(access),
                false => bpf::unless_only_access(access),
            });
            block.extend(major.map(bpf::unless_major));
            block.extend(minor.map(bpf::unless_minor));
            block.extend(bpf::answer(!self.allowed_by_default));
            bpf::skip_to_end(&mut block);
            program.extend(block);
        }
        program.extend(bpf::answer(self.allowed_by_default));
        program
    }
}

fn access_bits(text: &str) -> u8 {
    text.chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        }
    })
}

/// Confines the devices of the cgroup v2 that `pid` is in. Nothing to do where cgroups are not unified.
pub fn confine(pid: i32, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    match unified_cgroup(pid)? {
        Some(cgroup) => attach(&cgroup, rules),
        None => Ok(()),
    }
}

fn attach(cgroup: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let program = bpf::load_device_program(&Policy::from_rules(rules).program())?;
    bpf::attach_to_cgroup(&program, &File::open(cgroup)?)
}

/// The process's cgroup, where the root of /sys/fs/cgroup is cgroup v2 itself.
fn unified_cgroup(pid: i32) -> io::Result<Option<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if !root.join("cgroup.controllers").exists() {
        return Ok(None);
    }
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(|path| Some(root.join(path))).ok_or_else(|| io::Error::other("the container's process is in no cgroup"))
}

#[cfg(test)]
#[path = "devices_test.rs"]
mod tests;
