#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nalice:x:1000:1000::/home/alice:/bin/sh\n\
                      nohome:x:1001:1001:::/bin/sh\n42:x:4242:4242::/h:/bin/sh\nbig:x:4294967294:5::/h:/bin/sh\n";
const GROUP: &str = "root:x:0:\nalice:x:1000:\nwheel:x:10:root,alice\nvideo:x:44:alice\nhuge:x:4294967294:alice\n";

fn image() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
    fs::write(dir.path().join("etc/group"), GROUP).unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn image_user(text: &str) -> UserQuery {
    UserQuery { image_user: text.into(), ..UserQuery::default() }
}

fn resolved(uid: u32, gid: u32, groups: &[u32], home: &str, name: &str) -> ResolvedUser {
    ResolvedUser { uid, gid, additional_gids: groups.to_vec(), home: home.into(), username: name.into() }
}

#[test]
fn every_form_an_image_writes() {
    let (_dir, root) = image();
    for (text, expected) in [
        ("", resolved(0, 0, &[0, 10], "/root", "root")),
        ("0", resolved(0, 0, &[0, 10], "/root", "root")),
        ("alice", resolved(1000, 1000, &[10, 44, 1000], "/home/alice", "alice")),
        ("1000", resolved(1000, 1000, &[10, 44, 1000], "/home/alice", "alice")),
        ("1000:", resolved(1000, 1000, &[10, 44, 1000], "/home/alice", "alice")),
        ("alice:video", resolved(1000, 44, &[10, 44], "/home/alice", "alice")),
        ("1000:wheel", resolved(1000, 10, &[10, 44], "/home/alice", "alice")),
        ("alice:7", resolved(1000, 7, &[7, 10, 44], "/home/alice", "alice")),
        (":7", resolved(0, 7, &[7, 10], "/root", "root")),
        ("7777", resolved(7777, 0, &[0], "/", "")),
        ("7777:8888", resolved(7777, 8888, &[8888], "/", "")),
        ("nohome", resolved(1001, 1001, &[1001], "/", "nohome")),
        ("42", resolved(42, 0, &[0], "/", "")),
        ("2147483647", resolved(2_147_483_647, 0, &[0], "/", "")),
    ] {
        assert_eq!(find(&root, &image_user(text)).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn what_names_nobody_is_refused() {
    let (_dir, root) = image();
    for text in
        ["mallory", "alice:nogroup", "0x0", "-1", "2147483648", "4294967296", "99999999999999999999", "a:b:c", "0:-1", "+5", "big", " 0"]
    {
        let error = find(&root, &image_user(text)).unwrap_err();
        assert!(error.is_invalid(), "{text:?}: {error}");
    }
}

#[test]
fn a_uid_wins_over_a_name_and_a_name_over_the_image() {
    let (_dir, root) = image();
    let query = UserQuery { image_user: "root".into(), uid: Some(1000), username: "root".into(), ..UserQuery::default() };
    assert_eq!(find(&root, &query).unwrap().uid, 1000);
    let query = UserQuery { image_user: "root".into(), username: "alice".into(), gid: Some(5), ..UserQuery::default() };
    assert_eq!((find(&root, &query).unwrap().uid, find(&root, &query).unwrap().gid), (1000, 5));
    for query in [
        UserQuery { gid: Some(5), ..UserQuery::default() },
        UserQuery { uid: Some(-1), ..UserQuery::default() },
        UserQuery { uid: Some(0), gid: Some(2_147_483_648), ..UserQuery::default() },
        UserQuery { username: "1000".into(), ..UserQuery::default() },
        UserQuery { supplemental_groups: vec![2_147_483_648], ..UserQuery::default() },
    ] {
        assert!(find(&root, &query).unwrap_err().is_invalid());
    }
}

#[test]
fn strict_groups_are_the_listed_ones() {
    let (_dir, root) = image();
    let mut query = UserQuery { username: "alice".into(), supplemental_groups: vec![9, 3, 9], ..UserQuery::default() };
    assert_eq!(find(&root, &query).unwrap().additional_gids, [3, 9, 10, 44, 1000]);
    query.strict_groups = true;
    assert_eq!(find(&root, &query).unwrap().additional_gids, [3, 9, 1000]);
}

#[test]
fn hostile_files_are_neither_followed_out_nor_read_without_end() {
    let (dir, root) = image();
    let passwd = dir.path().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    assert_eq!(find(&root, &image_user("1000")).unwrap(), resolved(1000, 0, &[0], "/", ""));
    symlink("/proc/self/root/etc/passwd", &passwd).unwrap();
    assert_eq!(find(&root, &image_user("0")).unwrap().username, "");
    fs::remove_file(&passwd).unwrap();
    fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    assert!(find(&root, &image_user("0")).unwrap_err().is_invalid());
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(find(&root, &image_user("0")).is_err());
}
