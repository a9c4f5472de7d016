//! The file system that the guest sees: a root that holds one file or directory per volume.
//!
//! A node is named by eight bits of the volume's slot and 56 bits that the volume's own passthrough file system gave it. Slot 0 is the
//! root. A slot that is used again gets another generation, so what the guest still knows of the old volume is not taken for the new one.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{Attr, CreateIn, FsOptions, OpenOptions, ROOT_ID, SetattrValid, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader, ZeroCopyWriter,
};
use fuse_backend_rs::passthrough::{CachePolicy, Config, PassthroughFs};

/// Number of a volume: 1 to 255.
pub type Slot = u8;

/// How long the guest believes names and attributes. What the host changes is seen after this time at the latest; without it, every
/// step of every path would be a message.
const BELIEVED: Duration = Duration::from_secs(1);
/// Links are asked for each time: the kubelet swaps one to change a whole volume at once, and removes at once what it pointed to.
const LINKS_BELIEVED: Duration = Duration::ZERO;
/// The kernel's own limit of an extended attribute's size, and of a list of their names.
const MAX_XATTR_BYTES: u32 = 65536;
const SLOT_SHIFT: u32 = 56;
/// Name of the file or directory in the directory of its slot.
pub const SHARED: &CStr = c"v";

/// No cache of what the guest writes: when it has closed a file, the host has it.
fn wanted() -> FsOptions {
    FsOptions::ASYNC_READ
        | FsOptions::ASYNC_DIO
        | FsOptions::PARALLEL_DIROPS
        | FsOptions::BIG_WRITES
        | FsOptions::MAX_PAGES
        | FsOptions::AUTO_INVAL_DATA
        | FsOptions::ATOMIC_O_TRUNC
        | FsOptions::DO_READDIRPLUS
        | FsOptions::READDIRPLUS_AUTO
        | FsOptions::HANDLE_KILLPRIV_V2
}

/// Flags of an open file that mean something here. O_DIRECT does not: our buffers are not aligned for it.
fn usable(flags: u32) -> u32 {
    let known = libc::O_ACCMODE
        | libc::O_APPEND
        | libc::O_TRUNC
        | libc::O_EXCL
        | libc::O_NONBLOCK
        | libc::O_SYNC
        | libc::O_LARGEFILE
        | libc::O_DIRECTORY
        | libc::O_NOFOLLOW
        | libc::O_NOATIME;
    flags & known.cast_unsigned()
}

fn errno<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

/// One part of a path, and none that leads elsewhere.
fn checked(name: &CStr) -> io::Result<&CStr> {
    let bytes = name.to_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') { errno(libc::EINVAL) } else { Ok(name) }
}

fn split(node: u64) -> (Slot, u64) {
    // Eight bits are left of the first.
    ((node >> SLOT_SHIFT) as Slot, node & !(u64::MAX << SLOT_SHIFT))
}

struct Volume {
    slot: Slot,
    name: CString,
    generation: u64,
    files: PassthroughFs,
}

impl Volume {
    fn node(&self, inode: u64) -> u64 {
        u64::from(self.slot) << SLOT_SHIFT | inode
    }

    /// As the guest knows it. Every volume is on the guest's one device, so the host's inode numbers alone would clash.
    fn entry(&self, mut entry: Entry) -> Entry {
        entry.inode = self.node(entry.inode);
        entry.attr.st_ino = entry.inode;
        entry.generation = self.generation;
        if entry.attr.st_mode & libc::S_IFMT == libc::S_IFLNK {
            entry.entry_timeout = LINKS_BELIEVED;
        }
        entry
    }

    fn top(&self, ctx: &Context) -> io::Result<Entry> {
        Ok(self.entry(self.files.lookup(ctx, ROOT_ID, SHARED)?))
    }
}

#[derive(Default)]
struct Table {
    volumes: BTreeMap<Slot, Volume>,
    /// What was agreed with the guest's kernel.
    options: Option<FsOptions>,
    generation: u64,
}

/// Every volume of the pod. A request holds the lock for as long as it touches files, and not while its answer is on the way: when
/// [`Volumes::remove`] has returned, nothing of the volume is open.
#[derive(Default)]
pub struct Volumes(Mutex<Table>);

impl Volumes {
    /// Serves what is at [`SHARED`] in `directory` as `name`.
    pub fn add(&self, slot: Slot, name: &str, directory: &str) -> io::Result<()> {
        let config = Config {
            root_dir: directory.to_owned(),
            attr_timeout: BELIEVED,
            entry_timeout: BELIEVED,
            cache_policy: CachePolicy::Auto,
            xattr: true,
            do_import: false,
            use_host_ino: true,
            allow_direct_io: false,
            ..Config::default()
        };
        let files = PassthroughFs::new(config)?;
        files.import()?;
        let name = CString::new(name)?;
        let mut table = self.table();
        if slot == 0 || table.volumes.contains_key(&slot) || table.volumes.values().any(|other| other.name == name) {
            return errno(libc::EEXIST);
        }
        if let Some(options) = table.options {
            files.init(options)?;
        }
        table.generation += 1;
        let generation = table.generation;
        table.volumes.insert(slot, Volume { slot, name, generation, files });
        Ok(())
    }

    /// Serves the volume no more and closes everything of it. Unknown is success.
    pub fn remove(&self, slot: Slot) {
        let volume = self.table().volumes.remove(&slot);
        drop(volume);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on a node of a volume. The directory of a slot itself is nobody's.
    fn inside<T>(&self, node: u64, act: impl FnOnce(&Volume, u64) -> io::Result<T>) -> io::Result<T> {
        match split(node) {
            (0, ROOT_ID) => errno(libc::EPERM),
            (0, _) | (_, ROOT_ID) => errno(libc::ESTALE),
            (slot, inode) => match self.table().volumes.get(&slot) {
                Some(volume) => act(volume, inode),
                None => errno(libc::ESTALE),
            },
        }
    }

    /// Acts on two nodes of one volume.
    fn both<T>(&self, one: u64, other: u64, act: impl FnOnce(&Volume, u64, u64) -> io::Result<T>) -> io::Result<T> {
        match (split(one), split(other)) {
            ((slot, _), (other_slot, inode)) if slot == other_slot && inode != ROOT_ID => {
                self.inside(one, |volume, first| act(volume, first, inode))
            }
            _ => errno(libc::EXDEV),
        }
    }

    fn list_root(&self, ctx: &Context, offset: u64, add: &mut dyn FnMut(DirEntry, Entry) -> io::Result<usize>) -> io::Result<()> {
        let table = self.table();
        // The offset of an entry is its slot: it stays what it is when others come and go.
        let from = Slot::try_from(offset).unwrap_or(Slot::MAX);
        for volume in table.volumes.values().filter(|volume| volume.slot > from) {
            let entry = volume.top(ctx)?;
            let type_ = (entry.attr.st_mode & libc::S_IFMT) >> 12;
            let listed = DirEntry { ino: entry.inode, offset: u64::from(volume.slot), type_, name: volume.name.to_bytes() };
            if add(listed, entry)? == 0 {
                volume.files.forget(ctx, split(entry.inode).1, 1);
                break;
            }
        }
        Ok(())
    }
}

fn root_attributes() -> stat64 {
    Attr { ino: ROOT_ID, mode: libc::S_IFDIR | 0o755, nlink: 2, blksize: 4096, ..Attr::default() }.into()
}

type Opened = (Option<u64>, OpenOptions, Option<u32>);

impl FileSystem for Volumes {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let agreed = wanted() & capable;
        let mut table = self.table();
        table.options = Some(agreed);
        for volume in table.volumes.values() {
            volume.files.init(agreed)?;
        }
        Ok(agreed)
    }

    fn lookup(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        checked(name)?;
        if parent == ROOT_ID {
            let table = self.table();
            return match table.volumes.values().find(|volume| volume.name.as_c_str() == name) {
                Some(volume) => volume.top(ctx),
                None => errno(libc::ENOENT),
            };
        }
        self.inside(parent, |volume, inode| Ok(volume.entry(volume.files.lookup(ctx, inode, name)?)))
    }

    fn forget(&self, ctx: &Context, node: u64, count: u64) {
        // Of a volume that is gone: it is forgotten.
        let _ = self.inside(node, |volume, inode| {
            volume.files.forget(ctx, inode, count);
            Ok(())
        });
    }

    fn getattr(&self, ctx: &Context, node: u64, handle: Option<u64>) -> io::Result<(stat64, Duration)> {
        if node == ROOT_ID {
            return Ok((root_attributes(), BELIEVED));
        }
        self.inside(node, |volume, inode| {
            let (mut attributes, believed) = volume.files.getattr(ctx, inode, handle)?;
            attributes.st_ino = node;
            Ok((attributes, believed))
        })
    }

    fn setattr(
        &self,
        ctx: &Context,
        node: u64,
        attributes: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.inside(node, |volume, inode| {
            let (mut attributes, believed) = volume.files.setattr(ctx, inode, attributes, handle, valid)?;
            attributes.st_ino = node;
            Ok((attributes, believed))
        })
    }

    fn readlink(&self, ctx: &Context, node: u64) -> io::Result<Vec<u8>> {
        self.inside(node, |volume, inode| volume.files.readlink(ctx, inode))
    }

    fn symlink(&self, ctx: &Context, target: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        checked(name)?;
        self.inside(parent, |volume, inode| Ok(volume.entry(volume.files.symlink(ctx, target, inode, name)?)))
    }

    fn mknod(&self, ctx: &Context, parent: u64, name: &CStr, mode: u32, device: u32, umask: u32) -> io::Result<Entry> {
        checked(name)?;
        self.inside(parent, |volume, inode| Ok(volume.entry(volume.files.mknod(ctx, inode, name, mode, device, umask)?)))
    }

    fn mkdir(&self, ctx: &Context, parent: u64, name: &CStr, mode: u32, umask: u32) -> io::Result<Entry> {
        checked(name)?;
        self.inside(parent, |volume, inode| Ok(volume.entry(volume.files.mkdir(ctx, inode, name, mode, umask)?)))
    }

    fn unlink(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        checked(name)?;
        self.inside(parent, |volume, inode| volume.files.unlink(ctx, inode, name))
    }

    fn rmdir(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        checked(name)?;
        self.inside(parent, |volume, inode| volume.files.rmdir(ctx, inode, name))
    }

    fn rename(&self, ctx: &Context, from: u64, old: &CStr, to: u64, new: &CStr, flags: u32) -> io::Result<()> {
        checked(old)?;
        checked(new)?;
        self.both(from, to, |volume, from, to| volume.files.rename(ctx, from, old, to, new, flags))
    }

    fn link(&self, ctx: &Context, node: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        checked(name)?;
        self.both(node, parent, |volume, inode, parent| Ok(volume.entry(volume.files.link(ctx, inode, parent, name)?)))
    }

    fn open(&self, ctx: &Context, node: u64, flags: u32, fuse_flags: u32) -> io::Result<Opened> {
        self.inside(node, |volume, inode| volume.files.open(ctx, inode, usable(flags), fuse_flags))
    }

    fn create(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        mut args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        checked(name)?;
        args.flags = usable(args.flags);
        self.inside(parent, |volume, inode| {
            let (entry, handle, options, backing) = volume.files.create(ctx, inode, name, args)?;
            Ok((volume.entry(entry), handle, options, backing))
        })
    }

    fn read(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        into: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.inside(node, |volume, inode| volume.files.read(ctx, inode, handle, into, size, offset, owner, usable(flags)))
    }

    fn write(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        delayed: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        self.inside(node, |volume, inode| {
            volume.files.write(ctx, inode, handle, from, size, offset, owner, delayed, usable(flags), fuse_flags)
        })
    }

    fn flush(&self, ctx: &Context, node: u64, handle: u64, owner: u64) -> io::Result<()> {
        self.inside(node, |volume, inode| volume.files.flush(ctx, inode, handle, owner))
    }

    fn fsync(&self, ctx: &Context, node: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.inside(node, |volume, inode| volume.files.fsync(ctx, inode, data_only, handle))
    }

    fn fallocate(&self, ctx: &Context, node: u64, handle: u64, mode: u32, offset: u64, length: u64) -> io::Result<()> {
        self.inside(node, |volume, inode| volume.files.fallocate(ctx, inode, handle, mode, offset, length))
    }

    fn lseek(&self, ctx: &Context, node: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        self.inside(node, |volume, inode| volume.files.lseek(ctx, inode, handle, offset, whence))
    }

    fn release(
        &self,
        ctx: &Context,
        node: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        owner: Option<u64>,
    ) -> io::Result<()> {
        self.inside(node, |volume, inode| volume.files.release(ctx, inode, flags, handle, flush, flock_release, owner))
    }

    fn statfs(&self, ctx: &Context, node: u64) -> io::Result<statvfs64> {
        self.inside(node, |volume, inode| volume.files.statfs(ctx, inode))
    }

    fn setxattr(&self, ctx: &Context, node: u64, name: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
        self.inside(node, |volume, inode| volume.files.setxattr(ctx, inode, name, value, flags))
    }

    fn getxattr(&self, ctx: &Context, node: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        // The answer's buffer is allocated in this size.
        if size > MAX_XATTR_BYTES {
            return errno(libc::E2BIG);
        }
        self.inside(node, |volume, inode| volume.files.getxattr(ctx, inode, name, size))
    }

    fn listxattr(&self, ctx: &Context, node: u64, size: u32) -> io::Result<ListxattrReply> {
        if size > MAX_XATTR_BYTES {
            return errno(libc::E2BIG);
        }
        self.inside(node, |volume, inode| volume.files.listxattr(ctx, inode, size))
    }

    fn removexattr(&self, ctx: &Context, node: u64, name: &CStr) -> io::Result<()> {
        self.inside(node, |volume, inode| volume.files.removexattr(ctx, inode, name))
    }

    fn opendir(&self, ctx: &Context, node: u64, flags: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        if node == ROOT_ID {
            return Ok((None, OpenOptions::empty()));
        }
        self.inside(node, |volume, inode| volume.files.opendir(ctx, inode, usable(flags)))
    }

    fn readdir(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry) -> io::Result<usize>,
    ) -> io::Result<()> {
        if node == ROOT_ID {
            let mut found = Vec::new();
            self.list_root(ctx, offset, &mut |listed, entry| {
                found.push(entry.inode);
                add(listed)
            })?;
            // A plain listing counts as no lookup; what did not fit is uncounted already.
            found.into_iter().for_each(|node| self.forget(ctx, node, 1));
            return Ok(());
        }
        self.inside(node, |volume, inode| {
            volume.files.readdir(ctx, inode, handle, size, offset, &mut |mut listed| {
                listed.ino = volume.node(listed.ino);
                add(listed)
            })
        })
    }

    fn readdirplus(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        if node == ROOT_ID {
            return self.list_root(ctx, offset, add);
        }
        self.inside(node, |volume, inode| {
            volume.files.readdirplus(ctx, inode, handle, size, offset, &mut |mut listed, entry| {
                let entry = volume.entry(entry);
                listed.ino = entry.inode;
                add(listed, entry)
            })
        })
    }

    fn fsyncdir(&self, ctx: &Context, node: u64, data_only: bool, handle: u64) -> io::Result<()> {
        if node == ROOT_ID {
            return Ok(());
        }
        self.inside(node, |volume, inode| volume.files.fsyncdir(ctx, inode, data_only, handle))
    }

    fn releasedir(&self, ctx: &Context, node: u64, flags: u32, handle: u64) -> io::Result<()> {
        if node == ROOT_ID {
            return Ok(());
        }
        self.inside(node, |volume, inode| volume.files.releasedir(ctx, inode, flags, handle))
    }
}
