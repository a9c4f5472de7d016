//! Control groups as the host has them: v2, v1, or both at once (hybrid).
//!
//! On a hybrid host controllers live in v1 hierarchies and the v2 tree is there too; a process is in one cgroup of each.

pub mod container;
pub mod detail;
pub mod group;
pub mod leaf;
pub mod procs;
pub mod stats;
pub mod systemd;

use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("cgroup {path}: {action}: {source}")]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup")]
    NoHierarchy,
    #[error("cgroup path {path:?} must be a plain path without `..`")]
    BadPath { path: String },
    #[error("cgroup parent {slice:?} is not a slice name: write NAME.slice, with `-` between its levels")]
    BadSlice { slice: String },
    #[error("systemd does not stop {slice}: {reason}")]
    Systemd { slice: String, reason: String },
}

impl CgroupError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub kind: HierarchyKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HierarchyKind {
    /// v1 with these controllers, or with `name=…` and none.
    V1 {
        controllers: Vec<String>,
    },
    V2,
}

impl Hierarchy {
    pub fn is_v2(&self) -> bool {
        self.kind == HierarchyKind::V2
    }

    /// A v1 hierarchy with this controller.
    pub fn has(&self, controller: &str) -> bool {
        matches!(&self.kind, HierarchyKind::V1 { controllers } if controllers.iter().any(|name| name == controller))
    }
}

/// Every hierarchy of the host, v1 first.
#[derive(Clone, Debug)]
pub struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Reads the mount table of this process.
    pub fn detect() -> Result<Self, CgroupError> {
        let table = Path::new("/proc/self/mountinfo");
        let text = std::fs::read_to_string(table).map_err(|source| CgroupError::io(table, "read", source))?;
        let found = parse_mountinfo(&text);
        if found.is_empty() { Err(CgroupError::NoHierarchy) } else { Ok(Self(found)) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter()
    }

    /// True when v2 is all there is.
    pub fn is_unified(&self) -> bool {
        self.0.iter().all(|hierarchy| hierarchy.kind == HierarchyKind::V2)
    }

    /// Where the process is, as directories; one for each hierarchy.
    pub fn directories_of(&self, pid: u32) -> Result<Vec<(Hierarchy, PathBuf)>, CgroupError> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = std::fs::read_to_string(&file).map_err(|source| CgroupError::io(&file, "read", source))?;
        Ok(self.directories_in(&text))
    }

    fn directories_in(&self, proc_cgroup: &str) -> Vec<(Hierarchy, PathBuf)> {
        let mut directories = Vec::new();
        for line in proc_cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let hierarchy = self.0.iter().find(|hierarchy| match &hierarchy.kind {
                HierarchyKind::V2 => names.is_empty(),
                HierarchyKind::V1 { .. } => names.split(',').next().is_some_and(|first| hierarchy.has(first)),
            });
            if let Some(hierarchy) = hierarchy {
                directories.push((hierarchy.clone(), below(&hierarchy.mount, path)));
            }
        }
        directories
    }
}

/// `relative` below `mount`, also when it begins with a slash.
pub(crate) fn below(mount: &Path, relative: &str) -> PathBuf {
    mount.join(relative.trim_start_matches('/'))
}

/// A cgroup path from outside: plain components only.
pub(crate) fn checked_path(path: &str) -> Result<String, CgroupError> {
    let bad = || CgroupError::BadPath { path: path.to_owned() };
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().filter(|text| !text.contains(['\n', '\0'])).ok_or_else(bad)?),
            Component::ParentDir | Component::Prefix(_) => return Err(bad()),
        }
    }
    if parts.is_empty() { Err(bad()) } else { Ok(parts.join("/")) }
}

/// Only hierarchies mounted from their root count: the paths in /proc/PID/cgroup are relative to it.
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((mount_part, fs_part)) = line.split_once(" - ") else { continue };
        let mount_fields: Vec<&str> = mount_part.split(' ').collect();
        let fs_fields: Vec<&str> = fs_part.split(' ').collect();
        let (Some(root), Some(mount), Some(fs_type)) = (mount_fields.get(3), mount_fields.get(4), fs_fields.first()) else { continue };
        if *root != "/" || !mount.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let kind = match *fs_type {
            "cgroup2" => HierarchyKind::V2,
            "cgroup" => HierarchyKind::V1 { controllers: v1_controllers(fs_fields.get(2).copied().unwrap_or_default()) },
            _ => continue,
        };
        if !found.iter().any(|known| known.kind == kind) {
            found.push(Hierarchy { mount: PathBuf::from(mount), kind });
        }
    }
    found.sort_by_key(|hierarchy| hierarchy.kind == HierarchyKind::V2);
    found
}

fn v1_controllers(super_options: &str) -> Vec<String> {
    let flags = ["rw", "ro", "xattr", "clone_children", "cpuset_v2_mode", "noprefix", "favordynmods", "nofavordynmods"];
    super_options.split(',').filter(|option| !flags.contains(option) && !option.starts_with("release_agent=")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/usr/lib/systemd/systemd-cgroups-agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:32 / /somewhere/else rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn hybrid_host() {
        let hierarchies = Hierarchies(parse_mountinfo(HYBRID));
        assert!(!hierarchies.is_unified());
        assert_eq!(hierarchies.iter().count(), 4);
        let directories = hierarchies.directories_in("9:name=systemd:/\n4:memory:/pod/ctr\n1:cpu,cpuacct:/pod/ctr\n0::/x\n3:cpuset:/q\n");
        let paths: Vec<&str> = directories.iter().map(|(_, path)| path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            ["/sys/fs/cgroup/systemd/", "/sys/fs/cgroup/memory/pod/ctr", "/sys/fs/cgroup/cpu,cpuacct/pod/ctr", "/sys/fs/cgroup/unified/x",]
        );
    }

    #[test]
    fn unified_host() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let hierarchies = Hierarchies(parse_mountinfo(text));
        assert!(hierarchies.is_unified());
        let directories = hierarchies.directories_in("0::/kubepods.slice/a.scope\n");
        assert_eq!(directories[0].1, Path::new("/sys/fs/cgroup/kubepods.slice/a.scope"));
    }

    #[test]
    fn paths_from_outside_are_plain() {
        assert_eq!(checked_path("/kubepods//pod1/").unwrap(), "kubepods/pod1");
        for bad in ["", "/", "../x", "/a/../../b", "a\nb"] {
            assert!(checked_path(bad).is_err(), "{bad:?}");
        }
    }
}
