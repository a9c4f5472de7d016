//! The cgroup leaf of a pod's auraed, beside its containers' cgroups.
//!
//! On v2 a cgroup that hands controllers to its children holds no processes, so auraed needs a leaf of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, Hierarchies, Hierarchy, HierarchyKind, below, checked_path, procs, systemd};

/// How names of cgroups are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// The pod's cgroup and our leaf in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSpec {
    pub driver: Driver,
    pub parent: String,
    /// The pod's cgroup is ours to make and to remove.
    pub owned: bool,
    pub leaf: String,
}

/// The leaf after this process joined it.
#[derive(Debug)]
pub struct PodLeaf {
    /// Where this process was before.
    origins: Vec<PathBuf>,
    /// What we made, in that order.
    made: Vec<PathBuf>,
    /// The pod's cgroup in each hierarchy.
    pod: Vec<(Hierarchy, PathBuf)>,
    /// Remove the pod's cgroup with everything the OCI runtime left in it.
    owned: bool,
    /// What systemd calls the pod's cgroup, where it manages that.
    slice: Option<String>,
}

impl PodLeaf {
    /// Makes the leaf in every hierarchy, with what is missing above it, and moves this process there. On failure everything is as before.
    pub fn enter(hierarchies: &Hierarchies, spec: &LeafSpec) -> Result<Self, CgroupError> {
        let parent = match spec.driver {
            Driver::Cgroupfs => checked_path(&spec.parent)?,
            Driver::Systemd => systemd::expand_slice(&spec.parent)?,
        };
        let leaf_name = checked_path(&spec.leaf)?;
        let pod: Vec<_> = hierarchies.iter().map(|hierarchy| (hierarchy.clone(), below(&hierarchy.mount, &parent))).collect();
        let slice = (spec.driver == Driver::Systemd).then(|| spec.parent.clone());
        let origins = hierarchies.directories_of(std::process::id())?.into_iter().map(|(_, path)| path).collect();
        let mut leaf = Self { origins, made: Vec::new(), pod: pod.clone(), owned: spec.owned, slice };
        let entered = pod.iter().try_for_each(|(hierarchy, pod)| {
            let directory = pod.join(&leaf_name);
            make(&hierarchy.mount, &directory, &hierarchy.kind, &mut leaf.made)?;
            procs::join(&directory, 0)
        });
        match entered {
            Ok(()) => Ok(leaf),
            Err(error) => {
                leaf.leave();
                Err(error)
            }
        }
    }

    /// The pod's cgroup in each hierarchy.
    pub fn pod_directories(&self) -> &[(Hierarchy, PathBuf)] {
        &self.pod
    }

    /// Moves this process back and removes what we made. Failures are logged: nothing else can be done about them.
    pub fn leave(self) {
        for origin in &self.origins {
            if let Err(error) = procs::join(origin, 0) {
                tracing::warn!(%error, "could not leave the pod's cgroup");
            }
        }
        for directory in self.made.iter().rev().filter(|directory| !self.is_above_slice(directory)) {
            if let Err(error) = procs::remove(directory) {
                tracing::debug!(%error, "a cgroup stays");
            }
        }
        if self.owned {
            for (_, directory) in &self.pod {
                if let Err(error) = procs::remove_tree(directory) {
                    tracing::warn!(%error, "the pod's cgroup stays");
                }
            }
        }
        self.stop_slice();
    }

    /// Slices above the pod's are systemd's: it does not notice that one is removed, and would not make it again.
    fn is_above_slice(&self, directory: &Path) -> bool {
        self.slice.is_some() && self.pod.iter().any(|(_, pod)| pod != directory && pod.starts_with(directory))
    }

    /// A slice of ours, when nothing is left in it. systemd makes its cgroup again for as long as it counts as active.
    fn stop_slice(&self) {
        let Some(slice) = &self.slice else { return };
        let ours = self.owned || self.pod.iter().any(|(_, pod)| self.made.contains(pod));
        if ours
            && self.pod.iter().all(|(_, pod)| procs::pids(pod).is_empty())
            && let Err(error) = systemd::stop_slice(slice)
        {
            tracing::warn!(%error, "a slice stays");
        }
    }
}

/// Makes `directory` with what is missing above it, noting in `made` what was.
pub(super) fn make(mount: &Path, directory: &Path, kind: &HierarchyKind, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let mut missing: Vec<&Path> = directory.ancestors().take_while(|path| *path != mount && !path.is_dir()).collect();
    missing.reverse();
    for path in missing {
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            // Somebody else made it between the look and the deed: theirs.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(CgroupError::io(path, "create", error)),
        }
        if matches!(kind, HierarchyKind::V1 { controllers } if controllers.iter().any(|name| name == "cpuset")) {
            inherit_cpuset(path)?;
        }
    }
    Ok(())
}

/// A new v1 cpuset is empty and takes no process until it has what its parent has.
fn inherit_cpuset(directory: &Path) -> Result<(), CgroupError> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(directory.join(file)).map_err(|source| CgroupError::io(directory, "read cpuset", source))?;
        if own.trim().is_empty() {
            let value = fs::read_to_string(parent.join(file)).map_err(|source| CgroupError::io(parent, "read cpuset", source))?;
            fs::write(directory.join(file), value.trim()).map_err(|source| CgroupError::io(directory, "write cpuset", source))?;
        }
    }
    Ok(())
}
