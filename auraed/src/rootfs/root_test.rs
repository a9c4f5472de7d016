#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// A tree and, beside it, what it must never reach.
fn hostile() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    symlink(dir.path().join("outside"), tree.join("absolute")).unwrap();
    symlink("../../../../../../../../../../../../tmp", tree.join("upward")).unwrap();
    symlink("/etc", tree.join("inner")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();
    symlink("/proc/self/root", tree.join("magic")).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    let root = Root::open(&tree).unwrap();
    (dir, root)
}

#[test]
fn links_and_dots_stay_inside() {
    let (dir, root) = hostile();
    root.ensure_directory("/inner/made", None).unwrap();
    assert!(dir.path().join("tree/etc/made").is_dir());
    root.ensure_directory("/../../../../deep/er", None).unwrap();
    assert!(dir.path().join("tree/deep/er").is_dir());
    for path in ["/absolute/x", "/upward/x", "/magic/x", "/loop/x", "/file/x", "/absolute", "", "a\0b"] {
        assert!(root.ensure_directory(path, None).is_err(), "{path:?}");
        assert!(root.ensure_file(path).is_err(), "{path:?}");
    }
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    assert!(!std::path::Path::new("/tmp/x").exists());
}

#[test]
fn a_made_directory_gets_the_owner_and_an_old_one_keeps_its_own() {
    let (dir, root) = hostile();
    root.ensure_directory("/a/b", Some((1234, 4321))).unwrap();
    let made = fs::metadata(dir.path().join("tree/a/b")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 4321, 0o755));
    assert_eq!(fs::metadata(dir.path().join("tree/a")).unwrap().uid(), 0);
    root.ensure_directory("/etc", Some((1234, 4321))).unwrap();
    assert_eq!(fs::metadata(dir.path().join("tree/etc")).unwrap().uid(), 0);
}

#[test]
fn files_are_made_once_and_never_emptied() {
    let (dir, root) = hostile();
    root.ensure_file("/new/file").unwrap();
    root.ensure_file("/file").unwrap();
    root.ensure_file("/inner/hosts").unwrap();
    assert_eq!(fs::read(dir.path().join("tree/file")).unwrap(), b"x");
    assert!(dir.path().join("tree/etc/hosts").is_file());
    assert!(root.ensure_file("/etc").is_err());
    assert!(root.ensure_file("/").is_err());
}

#[test]
fn only_regular_files_are_read() {
    let (dir, root) = hostile();
    let pipe = dir.path().join("tree/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(root.read_file("/pipe").is_err());
    assert!(root.read_file("/etc").is_err());
    assert!(root.read_file("/file").is_ok());
}
