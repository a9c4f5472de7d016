//! Mounts in the server's sandbox, made and taken away by `auraed vm`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustix::fs::FileType;
use tokio::sync::oneshot;

use super::control;
use super::volumes::{SHARED, Slot};
use crate::idmap::UserNamespace;
use crate::sys::mounts::{self, Access};
use crate::sys::namespace;
use crate::sys::process::PidFd;

/// Enough for a few system calls.
const STACK_BYTES: usize = 128 * 1024;

/// What goes where.
#[derive(Clone, Debug)]
pub struct Placement {
    pub slot: Slot,
    pub source: PathBuf,
    pub access: Access,
    /// Whose ids the owners of its files become; `None`: they stay.
    pub users: Option<UserNamespace>,
}

/// A source that could not be placed.
#[derive(Debug)]
pub struct Misplaced {
    /// Its slot.
    pub slot: Slot,
    pub error: io::Error,
}

/// Attaches each source in its slot; nothing is left of a call that fails.
pub async fn attach(server: Arc<PidFd>, placements: Vec<Placement>) -> Result<(), Misplaced> {
    let first = placements.first().map_or(0, |placement| placement.slot);
    let work = move || {
        let trees: Vec<_> = placements.iter().map(|placement| Ok((placement.slot, Tree::copy(placement)?))).collect::<Result<_, _>>()?;
        namespace::enter_mounts(server.as_fd()).map_err(|error| Misplaced { slot: first, error })?;
        for (index, (slot, tree)) in trees.iter().enumerate() {
            if let Err(error) = tree.place(*slot) {
                trees[..=index].iter().for_each(|(slot, _)| drop(clear(*slot)));
                return Err(Misplaced { slot: *slot, error });
            }
        }
        Ok(())
    };
    on_a_thread(work).await.unwrap_or_else(|error| Err(Misplaced { slot: first, error }))
}

/// Takes the mounts of these slots away.
pub async fn detach(server: Arc<PidFd>, slots: Vec<Slot>) -> io::Result<()> {
    on_a_thread(move || {
        namespace::enter_mounts(server.as_fd())?;
        slots.into_iter().try_for_each(clear)
    })
    .await?
}

/// Not one of the runtime's threads: they go on to do other work, elsewhere.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (reply, answer) = oneshot::channel();
    thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // Nobody may be waiting any more.
        let _ = reply.send(work());
    })?;
    answer.await.map_err(io::Error::other)
}

struct Tree {
    mounts: OwnedFd,
    directory: bool,
}

impl Tree {
    fn copy(placement: &Placement) -> Result<Self, Misplaced> {
        let copied = Self::clone_restricted(&placement.source, placement.access).and_then(|tree| {
            if let Some(users) = &placement.users {
                mounts::map_ids(tree.mounts.as_fd(), users.open()?.as_fd())?;
            }
            Ok(tree)
        });
        copied.map_err(|error| Misplaced { slot: placement.slot, error })
    }

    fn clone_restricted(source: &Path, access: Access) -> io::Result<Self> {
        let tree = mounts::clone_tree(source).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("a part of the path is a symbolic link: name what it leads to"),
            _ => error,
        })?;
        let directory = match FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => false,
            _ => return Err(io::Error::other("neither a directory nor a regular file: a guest could not use it")),
        };
        mounts::restrict(tree.as_fd(), access)?;
        Ok(Self { mounts: tree, directory })
    }

    /// In the server's namespace.
    fn place(&self, slot: Slot) -> io::Result<()> {
        fs::create_dir(control::directory(slot))?;
        let target = target(slot);
        if self.directory {
            fs::create_dir(&target)?;
        } else {
            fs::File::create_new(&target)?;
        }
        mounts::attach(self.mounts.as_fd(), &target)
    }
}

fn target(slot: Slot) -> PathBuf {
    // The name is ASCII.
    Path::new(&control::directory(slot)).join(SHARED.to_string_lossy().as_ref())
}

/// In the server's namespace. An empty slot is success.
fn clear(slot: Slot) -> io::Result<()> {
    let target = target(slot);
    mounts::unmount_all(&target)?;
    for gone in [fs::remove_file(&target).or_else(|_| fs::remove_dir(&target)), fs::remove_dir(control::directory(slot))] {
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
