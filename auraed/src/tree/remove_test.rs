#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;

#[test]
fn links_are_removed_and_what_they_lead_to_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/kept"), "").unwrap();
    symlink("../outside", tree.join("link")).unwrap();
    symlink("../../../outside", tree.join("a/b/link")).unwrap();
    remove(&tree).unwrap();
    assert!(!tree.exists());
    assert!(dir.path().join("outside/kept").exists());
    remove(&tree).unwrap();
    symlink("outside", dir.path().join("top")).unwrap();
    remove(&dir.path().join("top")).unwrap();
    assert!(dir.path().join("outside/kept").exists());
    remove(&dir.path().join("missing/inner")).unwrap();
    for path in ["/", "relative", "/tmp/../tmp"] {
        assert!(matches!(remove_checked(Path::new(path)), Err(RemoveError::Refused(_))), "{path}");
    }
}

#[test]
fn a_mount_is_not_crossed() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
    fs::create_dir_all(tree.join("mounted")).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("kept"), "").unwrap();
    mount(Some(&other), &tree.join("mounted"), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let result = remove_checked(&tree);
    umount2(&tree.join("mounted"), MntFlags::MNT_DETACH).unwrap();
    assert!(matches!(result, Err(RemoveError::Mounted(_))), "{result:?}");
    assert!(other.join("kept").exists());
    remove(&tree).unwrap();
}

#[test]
fn any_depth_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    // Deeper than a path can say: made from the inside out.
    for _ in 0..5 {
        let deeper = dir.path().join("deeper");
        fs::create_dir_all(deeper.join("d/".repeat(400))).unwrap();
        fs::rename(&tree, deeper.join("d/".repeat(400)).join("tree")).unwrap();
        fs::rename(&deeper, &tree).unwrap();
    }
    remove(&tree).unwrap();
    assert!(!tree.exists());
}
