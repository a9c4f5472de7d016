//! Volumes with this machine's own kernel as the guest: its FUSE, the guest's carrier of messages, a socket for the port, and the real
//! `auraed fs`. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use auraed::fs::client::{Access, FsError, FsServer, Share};
use auraed::init::volumes;
use auraed::pod::children::Children;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::runtime::Handle;

const AURAED: &str = env!("CARGO_BIN_EXE_auraed");
/// Longer than a guest believes what it knows.
const FORGOTTEN: Duration = Duration::from_millis(1100);

/// One waits for all children of a process, so all tests share it and the runtime it is on.
static RUNTIME: LazyLock<(Handle, Children)> = LazyLock::new(|| {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tell.send((Handle::current(), Children::start().unwrap())).unwrap();
            std::future::pending::<()>().await
        })
    });
    told.recv().unwrap()
});

fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    RUNTIME.0.spawn(async move { tell.send(work.await) });
    told.recv().unwrap()
}

/// Runs a shell script as this user with one more group; its exit code and standard output.
fn shell(user: u32, group: u32, script: &str) -> (i32, String) {
    let output = tempfile::NamedTempFile::new().unwrap();
    let file = output.reopen().unwrap();
    let script = script.to_owned();
    let code = wait(async move {
        let mut command = Command::new("setpriv");
        let (user, group) = (user.to_string(), group.to_string());
        command.args(["--reuid", &user, "--regid", &user, "--groups", &group, "sh", "-c", &script]);
        let child = RUNTIME.1.spawn(command.stdout(file.try_clone().unwrap()).stderr(file)).unwrap();
        child.exited.await.unwrap().code
    });
    (code, fs::read_to_string(output.path()).unwrap())
}

/// A server and a mount of what it serves.
struct Guest {
    dir: tempfile::TempDir,
    server: FsServer,
}

impl Guest {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("auraed-volumes-").tempdir().unwrap();
        fs::create_dir_all(dir.path().join("host")).unwrap();
        let (port, theirs) = UnixStream::pair().unwrap();
        let server = wait(async { FsServer::start(Path::new(AURAED), &RUNTIME.1, OwnedFd::from(theirs), None).await }).unwrap();
        volumes::mount_on(&dir.path().join("guest"), OwnedFd::from(port)).unwrap();
        Self { dir, server }
    }

    fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join("host").join(path)
    }

    fn guest(&self, path: &str) -> PathBuf {
        self.dir.path().join("guest").join(path)
    }

    fn try_share(&self, shares: &[(&str, &Path, Access)]) -> Result<(), FsError> {
        let made = shares.iter().map(|(name, path, access)| Share {
            name: (*name).into(),
            host_path: path.into(),
            access: *access,
            mapped: false,
        });
        let (server, shares) = (self.server.clone(), made.collect());
        wait(async move { server.share(shares).await })
    }

    /// A directory, made when missing.
    fn share(&self, name: &str, access: Access) {
        fs::create_dir_all(self.host(name)).unwrap();
        self.try_share(&[(name, &self.host(name), access)]).unwrap();
    }

    fn unshare(&self, name: &str) {
        let (server, names) = (self.server.clone(), vec![name.to_owned()]);
        wait(async move { server.unshare(names).await }).unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let server = self.server.clone();
        wait(async move { server.stop().await });
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        for target in targets.filter(|target| target.starts_with(self.dir.path())).collect::<Vec<_>>().into_iter().rev() {
            let _ = umount2(target, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
        }
    }
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.map(|_| ()).unwrap_err().raw_os_error().unwrap()
}

fn tmpfs(target: &Path) {
    fs::create_dir_all(target).unwrap();
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("size=64m")).unwrap();
}

#[test]
fn what_the_guest_writes_and_closes_the_host_has() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    fs::write(guest.guest("data/message"), "done").unwrap();
    assert_eq!(fs::read_to_string(guest.host("data/message")).unwrap(), "done");

    let mut log = OpenOptions::new().append(true).create(true).open(guest.guest("data/log")).unwrap();
    log.write_all(b"one\n").unwrap();
    fs::OpenOptions::new().append(true).open(guest.host("data/log")).unwrap().write_all(b"host\n").unwrap();
    log.write_all(b"two\n").unwrap();
    log.sync_all().unwrap();
    assert_eq!(fs::read_to_string(guest.host("data/log")).unwrap(), "one\nhost\ntwo\n");

    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(guest.guest("data/log")).unwrap();
    let mut bytes = [0; 3];
    direct.read_exact_at(&mut bytes, 4).unwrap();
    assert_eq!(&bytes, b"hos");

    fs::write(guest.guest("data/log"), "").unwrap();
    assert_eq!(fs::metadata(guest.host("data/log")).unwrap().len(), 0);
    let big: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(guest.guest("data/big"), &big).unwrap();
    assert!(fs::read(guest.host("data/big")).unwrap() == big);
    assert!(fs::read(guest.guest("data/big")).unwrap() == big);
}

#[test]
fn names_links_and_open_files_behave_as_on_a_disk() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    let at = |name: &str| guest.guest("data").join(name);
    fs::write(at("a"), "a").unwrap();
    fs::hard_link(at("a"), at("hard")).unwrap();
    assert_eq!(
        (fs::metadata(at("hard")).unwrap().nlink(), fs::metadata(at("a")).unwrap().ino()),
        (2, fs::metadata(at("hard")).unwrap().ino())
    );
    fs::create_dir(at("sub")).unwrap();
    fs::rename(at("a"), at("sub/b")).unwrap();
    assert_eq!(fs::read_to_string(guest.host("data/sub/b")).unwrap(), "a");
    symlink("sub/b", at("soft")).unwrap();
    assert_eq!((fs::read_to_string(at("soft")).unwrap(), fs::read_link(at("soft")).unwrap()), ("a".into(), "sub/b".into()));

    let mut open = OpenOptions::new().read(true).write(true).open(at("hard")).unwrap();
    fs::remove_file(at("hard")).unwrap();
    fs::remove_file(at("sub/b")).unwrap();
    open.write_all(b"still here").unwrap();
    open.rewind().unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), open.metadata().unwrap().nlink()), ("still here", 0));
    assert_eq!(errno(fs::read(at("soft"))), libc::ENOENT);

    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(fs::symlink_metadata(guest.host("data/fifo")).unwrap().file_type().is_fifo());
    fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(at("sub"), Some(12), Some(34)).unwrap();
    let sub = fs::metadata(guest.host("data/sub")).unwrap();
    assert_eq!((sub.uid(), sub.gid(), sub.mode() & 0o7777), (12, 34, 0o2750));
    fs::remove_dir(at("sub")).unwrap();
    let names: Vec<_> = fs::read_dir(at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn programs_maps_attributes_and_holes() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    let at = |name: &str| guest.guest("data").join(name).display().to_string();
    fs::copy("/bin/true", at("true")).unwrap();
    assert_eq!(shell(0, 0, &at("true")).0, 0);
    let script = format!(
        "set -e; cd {}; python3 -c 'import mmap,os; f=open(\"map\",\"w+b\"); f.truncate(8192); m=mmap.mmap(f.fileno(),8192); m[5000:5003]=b\"abc\"; m.flush(); m.close(); \
         os.setxattr(\"map\",\"user.colour\",b\"blue\"); assert os.listxattr(\"map\")==[\"user.colour\"]; \
         s=open(\"hole\",\"wb\"); s.truncate(1<<20); s.seek(1<<19); s.write(b\"x\"); s.close(); d=os.open(\"hole\",os.O_RDONLY); assert os.lseek(d,0,os.SEEK_DATA)>=(1<<19)-65536'",
        at("")
    );
    let (code, output) = shell(0, 0, &script);
    assert_eq!(code, 0, "{output}");
    assert_eq!(&fs::read(guest.host("data/map")).unwrap()[5000..5003], b"abc");
    let (code, colour) =
        shell(0, 0, &format!("python3 -c 'import os; print(os.getxattr(\"{}\",\"user.colour\"))'", guest.host("data/map").display()));
    assert_eq!((code, colour.trim()), (0, "b'blue'"));
}

#[test]
fn users_are_told_apart_and_supplementary_groups_count() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    fs::set_permissions(guest.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = guest.guest("data").display().to_string();
    // A volume of a pod with fsGroup 2000.
    std::os::unix::fs::chown(guest.host("data"), Some(0), Some(2000)).unwrap();
    fs::set_permissions(guest.host("data"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::write(guest.host("data/secret"), "x").unwrap();
    fs::set_permissions(guest.host("data/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    std::thread::sleep(FORGOTTEN);

    let (code, output) =
        shell(1000, 2000, &format!("cd {at} && echo hi >file && mkdir sub && touch sub/x && ln -s file link && ! cat secret"));
    assert_eq!(code, 0, "{output}");
    for name in ["file", "sub", "link", "sub/x"] {
        let made = fs::symlink_metadata(guest.host("data").join(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (1000, 2000), "{name}");
    }
    let (code, output) = shell(1001, 1001, &format!("cd {at} && cat file && touch more"));
    assert!(code != 0 && output.starts_with("hi\n") && output.contains("Permission denied"), "{output}");
    // What an unprivileged user writes to is set-user-id no more.
    fs::set_permissions(guest.guest("data/file"), fs::Permissions::from_mode(0o4777)).unwrap();
    assert_eq!(shell(1001, 1001, &format!("echo more >>{at}/file")).0, 0);
    assert_eq!(fs::metadata(guest.host("data/file")).unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn a_read_only_volume_is_so_below_mounts_too_and_a_file_is_a_volume() {
    let guest = Guest::start();
    fs::create_dir_all(guest.host("data")).unwrap();
    tmpfs(&guest.host("data/inner"));
    fs::write(guest.host("data/inner/file"), "inner").unwrap();
    fs::write(guest.host("hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(guest.host("neighbour"), "").unwrap();
    let shares = [
        ("data", guest.host("data"), Access::ReadOnly),
        ("data-top", guest.host("data"), Access::ReadOnlyTop),
        ("hosts", guest.host("hosts"), Access::ReadWrite),
        ("hosts-ro", guest.host("hosts"), Access::ReadOnly),
    ];
    let shares: Vec<_> = shares.iter().map(|(name, path, access)| (*name, path.as_path(), *access)).collect();
    guest.try_share(&shares).unwrap();
    umount2(&guest.host("data/inner"), MntFlags::empty())
        .unwrap_or_else(|error| panic!("the copy must not keep the host's mount: {error}"));

    assert_eq!(fs::read_to_string(guest.guest("data/inner/file")).unwrap(), "inner");
    fs::write(guest.guest("data-top/inner/new"), "x").unwrap();
    for name in ["data-top/new", "data/new", "data/inner/new", "data/inner/file", "hosts-ro"] {
        assert_eq!(errno(fs::write(guest.guest(name), "x")), libc::EROFS, "{name}");
    }
    assert_eq!(errno(fs::set_permissions(guest.guest("data/inner/file"), fs::Permissions::from_mode(0o777))), libc::EROFS);

    let bound = guest.dir.path().join("bound");
    fs::write(&bound, "").unwrap();
    mount(Some(&guest.guest("hosts")), &bound, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let written = OpenOptions::new().append(true).open(&bound).unwrap().write_all(b"10.0.0.1 me\n");
    umount2(&bound, MntFlags::MNT_DETACH).unwrap();
    written.unwrap();
    assert_eq!(fs::read_to_string(guest.host("hosts")).unwrap(), "127.0.0.1 localhost\n10.0.0.1 me\n");
    let mut listed: Vec<_> =
        fs::read_dir(guest.guest("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort();
    assert_eq!(listed, ["data", "data-top", "hosts", "hosts-ro"]);
    assert!(fs::metadata(guest.guest("hosts")).unwrap().is_file() && fs::metadata(guest.guest("data")).unwrap().is_dir());
    assert_eq!(errno(fs::create_dir(guest.guest("more"))), libc::EPERM);
    assert_eq!(errno(fs::rename(guest.guest("hosts"), guest.guest("data/hosts"))), libc::EXDEV);
}

#[test]
fn changes_of_the_host_are_seen() {
    let guest = Guest::start();
    for version in ["..1", "..2"] {
        fs::create_dir_all(guest.host("config").join(version)).unwrap();
        fs::write(guest.host("config").join(version).join("key"), version).unwrap();
    }
    symlink("..1", guest.host("config/..data")).unwrap();
    symlink("..data/key", guest.host("config/key")).unwrap();
    guest.share("config", Access::ReadOnly);
    assert_eq!(fs::read_to_string(guest.guest("config/key")).unwrap(), "..1");
    // As the kubelet does it: the link is swapped at once, and what it led to is gone.
    symlink("..2", guest.host("config/..tmp")).unwrap();
    fs::rename(guest.host("config/..tmp"), guest.host("config/..data")).unwrap();
    fs::remove_dir_all(guest.host("config/..1")).unwrap();
    assert_eq!(fs::read_to_string(guest.guest("config/key")).unwrap(), "..2");

    fs::write(guest.host("config/..2/key"), "longer").unwrap();
    std::thread::sleep(FORGOTTEN);
    assert_eq!(fs::read_to_string(guest.guest("config/key")).unwrap(), "longer");
}

#[test]
fn nothing_of_an_unshared_volume_is_left() {
    let guest = Guest::start();
    let disk = guest.host("disk");
    tmpfs(&disk);
    fs::create_dir(disk.join("sub")).unwrap();
    fs::write(disk.join("sub/file"), "x").unwrap();
    guest.try_share(&[("disk", &disk, Access::ReadWrite)]).unwrap();
    // Twice is once.
    guest.try_share(&[("disk", &disk, Access::ReadWrite)]).unwrap();
    let file = File::open(guest.guest("disk/sub/file")).unwrap();
    let mut written = File::create(guest.guest("disk/new")).unwrap();
    let listing = fs::read_dir(guest.guest("disk/sub")).unwrap();
    let device = fs::metadata(&disk).unwrap().dev();
    guest.unshare("disk");
    guest.unshare("disk");
    guest.unshare("never-shared");

    umount2(&disk, MntFlags::empty()).unwrap();
    assert!(!super_block_is_alive(device), "the file system is still in memory");
    assert_eq!(errno(file.read_exact_at(&mut [0], 0)), libc::ESTALE);
    assert_eq!(errno(written.write_all(b"x")), libc::ESTALE);
    std::thread::sleep(FORGOTTEN);
    assert_eq!(errno(fs::metadata(guest.guest("disk"))), libc::ENOENT);
    drop((file, written, listing));

    // The name again, for something else.
    tmpfs(&disk);
    fs::write(disk.join("other"), "y").unwrap();
    guest.try_share(&[("disk", &disk, Access::ReadWrite)]).unwrap();
    assert_eq!(fs::read_to_string(guest.guest("disk/other")).unwrap(), "y");
    guest.unshare("disk");
    umount2(&disk, MntFlags::empty()).unwrap();
}

/// Anonymous device numbers are given again at once: the number is free when the next file system gets it, or a lower one.
fn super_block_is_alive(device: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut alive = true;
    for _ in 0..3 {
        tmpfs(dir.path());
        alive &= fs::metadata(dir.path()).unwrap().dev() > device;
        umount2(dir.path(), MntFlags::empty()).unwrap();
    }
    alive
}

#[test]
fn all_or_nothing_is_shared() {
    let guest = Guest::start();
    fs::write(guest.host("file"), "").unwrap();
    symlink("file", guest.host("link")).unwrap();
    let _socket = UnixListener::bind(guest.host("socket")).unwrap();
    let share = |name: &str, path: &str| {
        let result = guest.try_share(&[("first", &guest.host("file"), Access::ReadOnly), (name, &guest.host(path), Access::ReadOnly)]);
        result.unwrap_err().to_string()
    };
    for (name, path, reason) in [
        ("second", "missing", "No such file"),
        ("second", "link", "symbolic link"),
        ("second", "socket", "neither a directory nor a regular file"),
        ("Second", "file", "lower-case letters"),
        ("first", "socket", "unshare that first"),
    ] {
        let error = share(name, path);
        assert!(error.contains(reason) && error.contains(name), "{error}");
        assert_eq!(fs::read_dir(guest.guest("")).unwrap().count(), 0);
    }
    for round in 0..300 {
        let name = format!("volume-{round}");
        guest.try_share(&[(&name, &guest.host("file"), Access::ReadOnly)]).unwrap();
        assert_eq!(fs::read(guest.guest(&name)).unwrap(), b"");
        guest.unshare(&name);
    }
    let names: Vec<_> = (0..256).map(|number| format!("volume-{number}")).collect();
    let file = guest.host("file");
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), file.as_path(), Access::ReadOnly)).collect();
    assert!(matches!(guest.try_share(&all).unwrap_err(), FsError::Full { name, .. } if name == "volume-255"));
    guest.try_share(&all[..255]).unwrap();
    assert_eq!(fs::read_dir(guest.guest("")).unwrap().count(), 255);
}

#[test]
fn the_sandbox_holds_the_volumes_alone() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    let server = PathBuf::from(format!("/proc/{}", guest.server.pid()));
    let read = |name: &str| fs::read_to_string(server.join(name)).unwrap();
    let mounts = read("mountinfo");
    let mut targets: Vec<_> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/", "/1/v", "/proc/self"], "{mounts}");
    assert!(mounts.lines().all(|line| line.contains("nosuid,nodev,noexec") && !line.contains("shared:")), "{mounts}");
    let status = read("status");
    // chown, dac_override, dac_read_search, fowner, fsetid, setgid, setuid, mknod, setfcap.
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t00000000880000df\n")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
    for kind in ["mnt", "net", "ipc", "uts"] {
        let (theirs, ours) =
            (fs::read_link(server.join("ns").join(kind)).unwrap(), fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
        assert_ne!(theirs, ours);
    }
    assert!(status.lines().any(|line| line == "Threads:\t2"), "{status}");
}

#[test]
fn its_end_is_seen_by_all() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    fs::write(guest.guest("data/file"), "x").unwrap();
    let file = File::open(guest.guest("data/file")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guest.server.pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    let server = guest.server.clone();
    assert_eq!(wait(async move { server.ended().await }), "it ended with 137");
    let error = guest.try_share(&[("more", &guest.host("data"), Access::ReadOnly)]).unwrap_err();
    assert!(matches!(error, FsError::Ended(_)), "{error}");
    guest.unshare("data");
    let deadline = Instant::now() + Duration::from_secs(5);
    while file.read_exact_at(&mut [0], 100).is_err_and(|error| error.raw_os_error() != Some(libc::ENOTCONN)) {
        assert!(Instant::now() < deadline, "the guest does not know that its volumes are gone");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!guest.guest("data").exists());
}

#[test]
fn a_thousand_small_files() {
    let guest = Guest::start();
    guest.share("data", Access::ReadWrite);
    for number in 0..1000 {
        fs::write(guest.guest(&format!("data/file-{number}")), number.to_string()).unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(guest.guest("data")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().ino(), entry.path().metadata().unwrap().ino());
        let number = entry.file_name().into_string().unwrap()["file-".len()..].to_owned();
        assert_eq!(fs::read_to_string(entry.path()).unwrap(), number);
        assert_eq!(fs::read_to_string(guest.host("data").join(entry.file_name())).unwrap(), number);
        seen += 1;
    }
    assert_eq!(seen, 1000);
}

/// Figures, not a test: `cargo test --test volumes -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let guest = Guest::start();
    tmpfs(&guest.host("data"));
    guest.share("data", Access::ReadWrite);
    for (place, at) in [("tmpfs", guest.host("data")), ("volume", guest.guest("data"))] {
        let timed = |what: &str, act: &mut dyn FnMut()| {
            let start = Instant::now();
            act();
            println!("{place:>7} {what}: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
        };
        let block = vec![7_u8; 1 << 20];
        timed("write 48 MiB + fsync", &mut || {
            let mut file = File::create(at.join("bulk")).unwrap();
            (0..48).for_each(|_| file.write_all(&block).unwrap());
            file.sync_all().unwrap();
        });
        for size in [1 << 20, 128 << 10] {
            let mut into = vec![0; size];
            timed(&format!("read 48 MiB by {} KiB", size >> 10), &mut || {
                let mut file = File::open(at.join("bulk")).unwrap();
                while file.read(&mut into).unwrap() > 0 {}
            });
        }
        let small = at.join(format!("small-{place}"));
        fs::create_dir(&small).unwrap();
        timed("write 1000 small files", &mut || (0..1000).for_each(|n| fs::write(small.join(format!("{n}")), "0123456789").unwrap()));
        std::thread::sleep(FORGOTTEN);
        timed("list and stat 1000 files", &mut || {
            fs::read_dir(&small).unwrap().for_each(|entry| assert!(entry.unwrap().metadata().is_ok()))
        });
        std::thread::sleep(FORGOTTEN);
        timed("read 1000 small files", &mut || (0..1000).for_each(|n| drop(fs::read(small.join(format!("{n}"))).unwrap())));
        let mut spent = Duration::ZERO;
        (0..10).for_each(|n| {
            std::thread::sleep(Duration::from_millis(120));
            let start = Instant::now();
            fs::metadata(small.join(format!("absent-{n}"))).unwrap_err();
            spent += start.elapsed();
        });
        println!("{place:>7} one failed lookup: {:.0} µs", spent.as_secs_f64() * 1e5);
        fs::remove_file(at.join("bulk")).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", guest.server.pid())).unwrap();
    println!("{}", status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon")).collect::<Vec<_>>().join(" "));
    guest.unshare("data");
    umount2(&guest.host("data"), MntFlags::empty()).unwrap();
}
