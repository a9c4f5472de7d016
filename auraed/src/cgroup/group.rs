//! A cgroup of our own making, in every hierarchy.

use std::path::{Path, PathBuf};

use super::container::ContainerCgroup;
use super::{CgroupError, Hierarchies, Hierarchy, below, checked_path, leaf, procs};

/// The cgroup, with what was made for it.
#[derive(Debug)]
pub struct Group {
    directories: Vec<(Hierarchy, PathBuf)>,
    /// In the order of making.
    made: Vec<PathBuf>,
}

impl Group {
    /// Makes what is missing of `path`, below each hierarchy's root. All or nothing.
    pub fn make(hierarchies: &Hierarchies, path: &str) -> Result<Self, CgroupError> {
        let path = checked_path(path)?;
        let directories: Vec<_> = hierarchies.iter().map(|hierarchy| (hierarchy.clone(), below(&hierarchy.mount, &path))).collect();
        let mut group = Self { directories: directories.clone(), made: Vec::new() };
        let made = directories
            .iter()
            .try_for_each(|(hierarchy, directory)| leaf::make(&hierarchy.mount, directory, &hierarchy.kind, &mut group.made));
        match made {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove_made();
                Err(error)
            }
        }
    }

    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(|(_, path)| path.as_path())
    }

    pub fn counters(&self) -> ContainerCgroup {
        ContainerCgroup::at(self.directories.clone())
    }

    /// Removes the cgroup with what is below it, and what was made above it when that is empty.
    pub fn remove(self) {
        for directory in self.directories() {
            if let Err(error) = procs::remove_tree(directory) {
                tracing::warn!(%error, "a cgroup stays");
            }
        }
        self.remove_made();
    }

    fn remove_made(&self) {
        for directory in self.made.iter().rev() {
            if let Err(error) = procs::remove(directory) {
                tracing::debug!(%error, "a cgroup stays");
            }
        }
    }
}
