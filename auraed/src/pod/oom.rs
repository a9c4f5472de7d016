//! Whether the kernel killed a process of a container for want of memory.
//!
//! A container's cgroup says so itself, unless it is a scope of systemd, which removes it as soon as the last process has ended. The pod's cgroup
//! counts what happened below it, and goes on doing so: what nobody else has had is that container's.

use std::collections::HashMap;

use crate::cgroup::container::ContainerCgroup;

#[derive(Default)]
pub struct OomAccount {
    /// Kills that were some container's.
    told: u64,
    alive: HashMap<String, ContainerCgroup>,
}

impl OomAccount {
    /// A container begins to be counted.
    pub fn enter(&mut self, id: &str, cgroup: ContainerCgroup, pod: Option<&ContainerCgroup>) {
        if self.alive.is_empty() {
            // What nobody of ours was there for: a cgroup parent may hold others.
            self.told = kills_of(pod);
        }
        self.alive.insert(id.to_owned(), cgroup);
    }

    /// A container has ended: whether anything of it was killed.
    pub fn leave(&mut self, id: &str, pod: Option<&ContainerCgroup>) -> bool {
        let Some(cgroup) = self.alive.remove(id) else { return false };
        let kills = cgroup.oom_kills().unwrap_or_else(|| self.untold(kills_of(pod)));
        self.told += kills;
        kills > 0
    }

    fn untold(&self, all: u64) -> u64 {
        let others: Vec<_> = self.alive.values().map(ContainerCgroup::oom_kills).collect();
        let rest = all.saturating_sub(self.told + others.iter().flatten().sum::<u64>());
        // Another has vanished at the same time, and may have been killed too.
        if others.contains(&None) { rest.min(1) } else { rest }
    }
}

fn kills_of(pod: Option<&ContainerCgroup>) -> u64 {
    pod.and_then(ContainerCgroup::oom_kills).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::cgroup::{Hierarchy, HierarchyKind};

    fn cgroup(directory: &Path) -> ContainerCgroup {
        ContainerCgroup::at(vec![(Hierarchy { mount: directory.to_owned(), kind: HierarchyKind::V2 }, directory.to_owned())])
    }

    fn count(directory: &Path, kills: u64) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("memory.events"), format!("oom {kills}\noom_kill {kills}\n")).unwrap();
    }

    #[test]
    fn a_cgroup_that_is_gone_had_what_nobody_else_had() {
        let dir = tempfile::tempdir().unwrap();
        let (pod, paths) = (cgroup(dir.path()), ["a", "b", "c"].map(|name| dir.path().join(name)));
        let mut account = OomAccount::default();
        count(dir.path(), 4);
        for path in &paths {
            count(path, 0);
            account.enter(&path.to_string_lossy(), cgroup(path), Some(&pod));
        }
        let mut ended = |path: &Path, kills: u64| {
            count(dir.path(), kills);
            fs::remove_dir_all(path).unwrap();
            account.leave(&path.to_string_lossy(), Some(&pod))
        };
        assert!(!ended(&paths[0], 4));
        count(&paths[2], 1);
        assert!(!ended(&paths[1], 5));
        assert!(ended(&paths[2], 6));
    }

    #[test]
    fn two_that_vanish_at_once_were_both_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (pod, gone) = (cgroup(dir.path()), ["a", "b"].map(|name| dir.path().join(name)));
        let mut account = OomAccount::default();
        for path in &gone {
            account.enter(&path.to_string_lossy(), cgroup(path), Some(&pod));
        }
        count(dir.path(), 2);
        assert!(gone.iter().all(|path| account.leave(&path.to_string_lossy(), Some(&pod))));
    }
}
