//! The cgroups of one container: found from its first process, in whatever way the OCI runtime named them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, Hierarchies, Hierarchy, HierarchyKind, procs};

/// A container's cgroup in each hierarchy in which it has one of its own.
#[derive(Clone, Debug)]
pub struct ContainerCgroup {
    directories: Vec<(Hierarchy, PathBuf)>,
}

impl ContainerCgroup {
    /// Of the container whose first process is `pid`. A cgroup that also holds us, or is above ours, is not the container's.
    pub fn of(hierarchies: &Hierarchies, pid: u32) -> Result<Self, CgroupError> {
        let ours = hierarchies.directories_of(std::process::id())?;
        let mut directories = hierarchies.directories_of(pid)?;
        directories.retain(|(hierarchy, path)| !ours.iter().any(|(other, own)| other == hierarchy && own.starts_with(path)));
        Ok(Self { directories })
    }

    /// Of the pod as a whole.
    pub fn at(directories: Vec<(Hierarchy, PathBuf)>) -> Self {
        Self { directories }
    }

    /// The directory of a v1 controller, else the v2 directory when v2 is all there is.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        let v1 = self.directories.iter().find(|(hierarchy, _)| hierarchy.has(name));
        v1.or_else(|| self.directories.iter().find(|_| self.is_unified())).map(|(_, path)| path.as_path())
    }

    /// `RESOURCE.pressure` of v2, which a hybrid host may have too: it needs no controller.
    pub fn pressure(&self, resource: &str) -> Option<String> {
        let (_, directory) = self.directories.iter().find(|(hierarchy, _)| hierarchy.is_v2())?;
        fs::read_to_string(directory.join(format!("{resource}.pressure"))).ok()
    }

    /// True when v2 is all there is.
    pub fn is_unified(&self) -> bool {
        self.directories.iter().all(|(hierarchy, _)| hierarchy.kind == HierarchyKind::V2)
    }

    /// The directory in which the container's processes are looked for.
    pub fn process_directory(&self) -> Option<&Path> {
        self.process_hierarchy().map(|(_, path)| path)
    }

    /// The same with the controller of its hierarchy, empty for v2. v1's pids and freezer do not mind further levels.
    pub fn process_hierarchy(&self) -> Option<(&str, &Path)> {
        let v1 = ["pids", "freezer", "cpu", "memory"].into_iter().filter(|_| !self.is_unified());
        v1.filter_map(|name| Some((name, self.controller(name)?))).next().or_else(|| self.controller("").map(|path| ("", path)))
    }

    /// Every process of the container.
    pub fn pids(&self) -> Vec<i32> {
        self.process_directory().map(procs::pids).unwrap_or_default()
    }

    pub fn signal_all(&self, signal: i32) {
        if let Some(directory) = self.process_directory() {
            procs::signal_all(directory, signal);
        }
    }

    /// Kills everything in it; `false` when something would not die.
    pub async fn kill_all(&self) -> bool {
        match self.process_directory() {
            Some(directory) => procs::kill_all(directory).await,
            None => true,
        }
    }

    /// How many of its processes the kernel's OOM killer has ended; `None` when it is gone, or memory is not accounted.
    pub fn oom_kills(&self) -> Option<u64> {
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.controller("memory")?.join(file)).ok()?;
        Some(counter(&text, "oom_kill"))
    }

    /// Removes what is left of it after the OCI runtime's `delete`.
    pub fn remove(&self) {
        for (_, directory) in &self.directories {
            if let Err(error) = procs::remove_tree(directory) {
                tracing::warn!(%error, "a container's cgroup stays");
            }
        }
    }
}

/// The value of `key` in a file of `KEY VALUE` lines.
pub(crate) fn figure(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The same; 0 when it is not there.
pub(crate) fn counter(text: &str, key: &str) -> u64 {
    figure(text, key).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_counters_of_both_versions() {
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(counter("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n", "oom_kill"), 1);
        assert_eq!(counter("low 0\n", "oom_kill"), 0);
    }
}
