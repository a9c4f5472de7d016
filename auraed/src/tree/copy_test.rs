#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

#[test]
fn everything_a_file_has_survives() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("sub/file"), "content").unwrap();
    std::os::unix::fs::chown(from.join("sub/file"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(from.join("sub/file"), from.join("twin")).unwrap();
    symlink("/etc/shadow", from.join("link")).unwrap();
    nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    // cap_net_raw=ep, version 2
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(from.join("capable"), "").unwrap();
    rustix::fs::setxattr(from.join("capable"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o1777)).unwrap();

    copy(open(&from), &to).unwrap();

    let file = fs::symlink_metadata(to.join("sub/file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1234, 4321, 0o4751));
    assert_eq!(file.mtime_nsec(), fs::metadata(from.join("sub/file")).unwrap().mtime_nsec());
    assert_eq!(file.ino(), fs::metadata(to.join("twin")).unwrap().ino());
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/shadow"));
    assert_eq!(fs::metadata(to.join("sub")).unwrap().mode() & 0o7777, 0o2770);
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::symlink_metadata(to.join("pipe")).unwrap().mode() & 0o7777, 0o640);
    let mut kept = [0; 64];
    let length = rustix::fs::getxattr(to.join("capable"), "security.capability", &mut kept).unwrap();
    assert_eq!(kept[..length], capability);
}

#[test]
fn endless_nesting_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("d/".repeat(MAX_DEPTH + 2))).unwrap();
    fs::create_dir(&to).unwrap();
    assert!(copy(open(&from), &to).unwrap_err().to_string().contains("nested deeper"));
}
