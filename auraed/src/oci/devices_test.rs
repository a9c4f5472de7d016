#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use super::*;

fn rules(text: serde_json::Value) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_value(text).unwrap()
}

#[test]
fn rules_add_up_as_on_v1() {
    let policy = Policy::from_rules(&rules(json!([
        { "allow": true, "type": "c", "major": 10, "minor": 1, "access": "rwm" },
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 2, "access": "r" },
        { "allow": true, "type": "c", "major": 10, "minor": 2, "access": "w" },
        { "allow": true, "type": "b", "major": 8, "access": "rwm" },
        { "allow": false, "type": "b", "major": 8, "access": "wm" },
    ])));
    assert!(!policy.allowed_by_default);
    assert_eq!(policy.exceptions.get(&(CHARACTER, Some(10), Some(1))), None);
    assert_eq!(policy.exceptions.get(&(CHARACTER, Some(10), Some(2))), Some(&(READ | WRITE)));
    assert_eq!(policy.exceptions.get(&(BLOCK, Some(8), None)), Some(&READ));
    let open = Policy::from_rules(&rules(json!([
        { "allow": true, "access": "rwm" }, { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm" },
    ])));
    assert_eq!(open, Policy { allowed_by_default: true, exceptions: BTreeMap::from([((CHARACTER, Some(1), Some(11)), EVERYTHING)]) });
}

/// A cgroup in any cgroup2 hierarchy of this host, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = table.lines().find_map(|line| line.contains(" cgroup2 ").then(|| line.split(' ').nth(1)).flatten())?;
        let path = Path::new(root).join(format!("auraed-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }

    fn run(&self, script: &str) -> bool {
        let script = format!("read go; {script}");
        let mut child = Command::new("/bin/busybox").args(["sh", "-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        fs::write(self.0.join("cgroup.procs"), child.id().to_string()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        child.wait().unwrap().success()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_kernel_enforces_the_program() {
    let Some(cgroup) = Cgroup::new("devices") else { return };
    assert!(cgroup.run("exec < /dev/kmsg"));
    let narrow = rules(json!([
        { "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 237, "access": "r" },
    ]));
    attach(&cgroup.0, &narrow).unwrap();
    for allowed in ["echo x > /dev/null", "exec < /dev/zero", "exec 3<> /dev/null", "exec < /dev/loop-control"] {
        assert!(cgroup.run(allowed), "{allowed}");
    }
    for refused in ["exec < /dev/kmsg", "exec 3<> /dev/loop-control", "exec > /dev/loop-control", "exec < /dev/loop0"] {
        assert!(!cgroup.run(refused), "{refused}");
    }
}

#[test]
fn a_privileged_container_keeps_all_but_what_is_refused() {
    let Some(cgroup) = Cgroup::new("privileged") else { return };
    let wide = rules(json!([
        { "allow": true, "access": "rwm" }, { "allow": false, "type": "c", "major": 10, "minor": 237, "access": "w" },
    ]));
    attach(&cgroup.0, &wide).unwrap();
    assert!(cgroup.run("exec < /dev/kmsg && exec < /dev/loop-control"));
    assert!(!cgroup.run("exec 3<> /dev/loop-control"));
}
