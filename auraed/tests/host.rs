//! `auraed host` against the kernel.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use common::AURAED;

fn host(args: &[&str]) -> Result<Value, String> {
    let output = Command::new(AURAED).arg("host").args(args).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        _ => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mounts_below(path: &Path) -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().matches(text(path)).count()
}

#[test]
fn a_layer_is_mounted_once_and_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let (content, blob, target) = (dir.path().join("content"), dir.path().join("layer.erofs"), dir.path().join("made/mnt"));
    fs::create_dir(&content).unwrap();
    fs::write(content.join("hello"), "world").unwrap();
    let made = Command::new("mkfs.erofs").arg(&blob).arg(&content).stdout(Stdio::null()).status().unwrap();
    assert!(made.success());
    let mount = ["mount-layer", "--blob", text(&blob), "--target", text(&target)];
    let first = host(&mount).unwrap();
    assert!(["file", "loop"].contains(&first["mounted"].as_str().unwrap()), "{first}");
    assert_eq!(fs::read(target.join("hello")).unwrap(), b"world");
    assert!(fs::write(target.join("new"), "").is_err());
    assert_eq!(host(&mount).unwrap()["mounted"], "before");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(text(&target))).unwrap();
    assert!(line.contains("nodev") && !line.contains("nosuid"), "{line}");

    let other = dir.path().join("other.erofs");
    fs::copy(&blob, &other).unwrap();
    assert!(host(&["mount-layer", "--blob", text(&other), "--target", text(&target)]).unwrap_err().contains("is mounted there"));
    assert_eq!(host(&["unmount", "--target", text(&target)]).unwrap()["unmounted"], 1);
    assert_eq!(host(&["unmount", "--target", text(&target)]).unwrap()["unmounted"], 0);
    fs::write(&other, "x".repeat(4096)).unwrap();
    assert!(host(&["mount-layer", "--blob", text(&other), "--target", text(&target)]).unwrap_err().contains("not an EROFS image"));
}

#[test]
fn stacked_nested_and_busy_mounts_go() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("a b");
    fs::create_dir_all(&top).unwrap();
    for _ in 0..2 {
        nix::mount::mount(Some("t"), &top, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    }
    fs::create_dir(top.join("inner")).unwrap();
    nix::mount::mount(Some("t"), &top.join("inner"), Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    let _busy = fs::File::create(top.join("inner/open")).unwrap();
    assert_eq!(host(&["unmount", "--target", text(&top)]).unwrap()["unmounted"], 3);
    assert_eq!(mounts_below(dir.path()), 0);
    assert_eq!(host(&["unmount", "--target", text(&dir.path().join("missing"))]).unwrap()["unmounted"], 0);
}

/// The hierarchies a test can make cgroups in.
fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = table.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|fields| fields[2].starts_with("cgroup"));
    mounts.map(|fields| PathBuf::from(fields[1])).filter(|root| !root.ends_with("cpuset")).collect()
}

#[test]
fn a_dead_pod_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("/auraed-test-clean-{}", std::process::id());
    let cgroups: Vec<_> = hierarchies().into_iter().map(|root| root.join(&name[1..])).collect();
    let leaves: Vec<_> = cgroups.iter().map(|cgroup| cgroup.join("inner")).collect();
    leaves.iter().for_each(|leaf| fs::create_dir_all(leaf).unwrap());
    // Children that fork on, and one that ignores what can be ignored.
    let script = "read go; trap '' TERM; while true; do (sleep 1 & sleep 1) & sleep 0.01; done";
    let mut child = Command::new("/bin/busybox").args(["sh", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    leaves.iter().for_each(|leaf| fs::write(leaf.join("cgroup.procs"), child.id().to_string()).unwrap());
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    fs::create_dir(dir.path().join("mnt")).unwrap();
    nix::mount::mount(Some("t"), &dir.path().join("mnt"), Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();

    let clean = ["clean-pod", "--dir", text(dir.path()), "--cgroup", &name];
    let reaper = std::thread::spawn(move || child.wait());
    let answer = host(&clean).unwrap();
    reaper.join().unwrap().unwrap();
    assert!(answer["killed"].as_u64().unwrap() >= 1, "{answer}");
    assert_eq!(answer["unmounted"], 1);
    assert_eq!(answer["cgroupsRemoved"], cgroups.len());
    assert!(cgroups.iter().all(|cgroup| !cgroup.exists()));
    assert_eq!(host(&clean).unwrap()["cgroupsRemoved"], 0);
}

#[test]
fn wrong_command_lines_are_refused() {
    for args in [
        &["frob"][..],
        &[],
        &["unmount"],
        &["unmount", "--target", "relative"],
        &["unmount", "--target", "/"],
        &["remove-tree", "--path", "/a/../b"],
        &["remove-tree", "--path", "/a", "--path", "/b"],
        &["clean-pod", "--dir"],
        &["clean-pod", "--dir", "/nowhere", "--cgroup", "/"],
        &["mount-layer", "--frob", "/x"],
    ] {
        assert!(host(args).is_err(), "{args:?}");
    }
}

#[test]
fn user_namespaces_are_tried_and_nothing_is_left() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("state");
    fs::create_dir(&inner).unwrap();
    let attempt = || host(&["try-user-namespace", "--dir", text(&inner)]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(attempt().unwrap()["supported"], true);
    assert_eq!((mounts_below(&inner), fs::read_dir(&inner).unwrap().count()), (0, 0));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(attempt().unwrap_err().contains("not reachable"));
}
