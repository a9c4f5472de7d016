#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::ROOT_ID;

use super::*;

const DESTROY: u32 = 38;
const FORGET: u32 = 2;
const LOOKUP: u32 = 1;
const MKNOD: u32 = 8;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const GETXATTR: u32 = 22;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;
/// Requests that get no answer.
const SILENT: [u32; 3] = [FORGET, 36, BATCH_FORGET];

/// A client that says what it likes.
struct Client {
    port: UnixStream,
    server: JoinHandle<Ended>,
    unique: u64,
}

impl Client {
    fn start(volumes: Arc<Volumes>) -> Self {
        let (port, theirs) = UnixStream::pair().unwrap();
        port.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { port, server: thread::spawn(move || serve(theirs, volumes)), unique: 0 }
    }

    fn send(&mut self, opcode: u32, node: u64, body: &[u8]) {
        self.unique += 1;
        let length = u32::try_from(REQUEST_HEADER_BYTES + body.len()).unwrap();
        let words = [opcode.to_ne_bytes(), [0; 4], [0; 4], [0; 4], [0; 4]];
        let header = [&length.to_ne_bytes()[..], &words[0], &self.unique.to_ne_bytes(), &node.to_ne_bytes(), &words[1..].concat()];
        // It may have had enough already.
        let _ = self.port.write_all(&[&header.concat(), body].concat());
    }

    /// Error and body of the next answer; `None` when there will be none.
    fn answer(&mut self) -> Option<(i32, Vec<u8>)> {
        let mut header = [0; 16];
        self.port.read_exact(&mut header).ok()?;
        let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
        assert!((16..=MAX_BYTES).contains(&length), "an answer of {length} bytes");
        let mut body = vec![0; length - 16];
        self.port.read_exact(&mut body).unwrap();
        assert_eq!(u64::from_ne_bytes(header[8..].try_into().unwrap()), self.unique);
        Some((-i32::from_ne_bytes(header[4..8].try_into().unwrap()), body))
    }

    fn call(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.send(opcode, node, body);
        match self.answer().expect("it answers") {
            (0, body) => Ok(body),
            (errno, _) => Err(errno),
        }
    }

    fn init(&mut self) {
        let body: Vec<u8> = [7_u32, 36, 131_072, !(1_u32 << 30)].into_iter().flat_map(u32::to_ne_bytes).collect();
        assert_eq!(self.call(INIT, 0, &body).unwrap()[..4], 7_u32.to_ne_bytes());
    }

    fn lookup(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let body = [name.as_bytes(), b"\0"].concat();
        self.call(LOOKUP, parent, &body).map(|entry| u64::from_ne_bytes(entry[..8].try_into().unwrap()))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let body = [flags.to_ne_bytes(), [0; 4]].concat();
        self.call(OPEN, node, &body).map(|opened| u64::from_ne_bytes(opened[..8].try_into().unwrap()))
    }

    /// Of READ and WRITE.
    fn transfer(handle: u64, offset: u64, size: u32, data: &[u8]) -> Vec<u8> {
        [&handle.to_ne_bytes()[..], &offset.to_ne_bytes(), &size.to_ne_bytes(), &[0; 20], data].concat()
    }

    fn end(self) -> Ended {
        drop(self.port);
        self.server.join().unwrap()
    }
}

/// Slot 1 is `data`, a directory with a file, a fifo, a device and a link out; slot 2 `file`, a file.
fn volumes() -> (tempfile::TempDir, Arc<Volumes>, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    let data = one.join("v");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::create_dir(&two).unwrap();
    fs::write(two.join("v"), "single").unwrap();
    fs::write(data.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("link")).unwrap();
    let (mode, permissions) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666));
    nix::unistd::mkfifo(&data.join("fifo"), permissions).unwrap();
    nix::sys::stat::mknod(&data.join("null"), mode, permissions, nix::sys::stat::makedev(1, 3)).unwrap();
    let volumes = Arc::new(Volumes::default());
    volumes.add(1, "data", one.to_str().unwrap()).unwrap();
    volumes.add(2, "file", two.to_str().unwrap()).unwrap();
    (dir, volumes, data)
}

#[test]
fn what_leads_out_or_elsewhere_is_refused() {
    let (_dir, volumes, data) = volumes();
    let mut client = Client::start(volumes);
    client.init();
    let top = client.lookup(ROOT_ID, "data").unwrap();
    let sub = client.lookup(top, "sub").unwrap();
    for parent in [ROOT_ID, top, sub] {
        for name in ["..", ".", "", "sub/..", "/etc"] {
            assert_eq!(client.lookup(parent, name), Err(libc::EINVAL), "{name:?}");
        }
    }
    // The directory of a slot: it is the sandbox's.
    assert_eq!(client.lookup(1 << 56 | ROOT_ID, "v"), Err(libc::ESTALE));
    assert_eq!(client.call(MKNOD, 1 << 56 | ROOT_ID, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0name\0"), Err(libc::ESTALE));
    for name in ["fifo", "null", "link"] {
        let node = client.lookup(top, name).unwrap();
        assert_eq!(client.open(node, libc::O_RDONLY | libc::O_NONBLOCK), Err(libc::EBADF), "{name}");
    }
    assert_eq!(client.call(GETXATTR, top, &[&u32::MAX.to_ne_bytes()[..], &[0; 4], b"user.x\0"].concat()), Err(libc::E2BIG));
    assert_eq!(client.call(DESTROY, ROOT_ID, b""), Err(libc::EPERM));
    assert_eq!(client.lookup(top, "sub"), Ok(sub));
    let file = client.lookup(ROOT_ID, "file").unwrap();
    let handle = client.open(file, libc::O_RDWR).unwrap();
    assert_eq!(client.call(READ, file, &Client::transfer(handle, 0, 100, b"")).unwrap(), b"single");
    assert_eq!(client.call(READ, top, &Client::transfer(handle, 0, 100, b"")), Err(libc::EBADF));
    client.call(WRITE, file, &Client::transfer(handle, 6, 1, b"!")).unwrap();
    assert_eq!(client.call(READ, file, &Client::transfer(handle, 0, 100, b"")).unwrap(), b"single!");
    assert!(data.join("file").exists());
    assert!(matches!(client.end(), Ended::Closed));
}

#[test]
fn a_removed_volume_is_stale_and_closed() {
    let (_dir, volumes, data) = volumes();
    let mut client = Client::start(volumes.clone());
    client.init();
    let top = client.lookup(ROOT_ID, "data").unwrap();
    let file = client.lookup(top, "file").unwrap();
    let handle = client.open(file, libc::O_RDWR).unwrap();
    let held = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|path| path.starts_with(&data))
            .count()
    };
    assert_eq!(held(), 3);
    volumes.remove(1);
    assert_eq!(held(), 0);
    assert_eq!(client.call(READ, file, &Client::transfer(handle, 0, 100, b"")), Err(libc::ESTALE));
    assert_eq!(client.lookup(top, "file"), Err(libc::ESTALE));
    assert_eq!(client.lookup(ROOT_ID, "data"), Err(libc::ENOENT));
    client.send(FORGET, file, &1_u64.to_ne_bytes());
    assert!(client.lookup(ROOT_ID, "file").is_ok());
    client.end();
}

#[test]
fn a_malformed_message_ends_the_service_with_a_reason() {
    let (_dir, volumes, _) = volumes();
    for (opcode, body) in [(LOOKUP, &b"no end"[..]), (READ, b"short"), (INIT, b""), (BATCH_FORGET, b"\xff\xff\xff\xff\0\0\0\0")] {
        let mut client = Client::start(volumes.clone());
        client.send(opcode, ROOT_ID, body);
        let ended = client.server.join().unwrap().to_string();
        assert!(ended.contains(&format!("operation {opcode}, {} bytes", REQUEST_HEADER_BYTES + body.len())), "{ended}");
    }
    let mut client = Client::start(volumes);
    client.port.write_all(&u32::MAX.to_ne_bytes()).unwrap();
    assert!(client.server.join().unwrap().to_string().contains("4294967295 bytes"));
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[test]
fn noise_harms_nothing_beside_the_volume() {
    let (dir, volumes, _) = volumes();
    fs::write(dir.path().join("beside"), "untouched").unwrap();
    let mut random = Random(0x5eed_0000_0000_0001);
    let mut client = Client::start(volumes.clone());
    client.init();
    let (mut answered, mut ended) = (0, 0);
    let mut nodes = vec![ROOT_ID, 1 << 56 | ROOT_ID, 2 << 56, u64::MAX, 0];
    for name in ["data", "file"] {
        nodes.push(client.lookup(ROOT_ID, name).unwrap());
    }
    nodes.push(client.lookup(nodes[5], "file").unwrap());
    nodes.push(client.lookup(nodes[5], "sub").unwrap());
    for _ in 0..8000 {
        let opcode = u32::try_from(random.below(54)).unwrap();
        let node = nodes[random.below(nodes.len() as u64) as usize];
        let mut body: Vec<u8> = (0..random.below(20)).flat_map(|_| (random.next() >> random.below(64)).to_ne_bytes()).collect();
        if random.below(2) == 0 {
            body.extend_from_slice([&b"file\0"[..], b"..\0", b"new\0name\0", b"\0", b"../../beside\0"][random.below(5) as usize]);
        }
        client.send(opcode, node, &body);
        if SILENT.contains(&opcode) {
            // One that is always answered, unless the other was the end.
            client.send(DESTROY, ROOT_ID, b"");
        }
        match client.answer() {
            Some((0, entry)) if opcode == LOOKUP => {
                answered += 1;
                nodes.truncate(64);
                nodes.push(u64::from_ne_bytes(entry[..8].try_into().unwrap()));
            }
            Some(_) => answered += 1,
            None => {
                ended += 1;
                assert!(matches!(client.server.join().unwrap(), Ended::Malformed(_)));
                client = Client::start(volumes.clone());
                client.init();
            }
        }
    }
    assert!(answered > 2000 && ended > 100, "{answered} answered, {ended} ended");
    assert_eq!(fs::read_to_string(dir.path().join("beside")).unwrap(), "untouched");
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["1", "2", "beside"]);
    for slot in ["1", "2"] {
        assert_eq!(fs::read_dir(dir.path().join(slot)).unwrap().count(), 1);
    }
}
