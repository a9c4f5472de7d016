//! Configure: the steps that turn a booted guest into the pod's. Each can be taken again after one behind it failed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::errors::GuestError;
use super::network::{self, Interface};
use super::scratch;
use crate::cgroup::Hierarchies;
use crate::cgroup::leaf::{Driver, LeafSpec};
use crate::idmap::IdMapping;
use crate::pod::children::Children;
use crate::pod::sandbox::{Sandbox, SandboxError, SandboxSpec};
use crate::pod::sysctl::{self, Scope, Sysctl};
use crate::sys::{guest, namespace};

/// What is asked for, checked.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub pod_id: String,
    pub hostname: String,
    /// Keys and values, sorted by key.
    pub sysctls: Vec<(String, String)>,
    pub shm_size_bytes: u64,
    pub shared_pid: bool,
    /// Absolute paths and contents.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    pub interface: Option<Interface>,
    /// Unix time.
    pub clock_ns: i64,
    pub entropy: Vec<u8>,
    /// Of the pod's user namespace; empty: it has none.
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

impl Configuration {
    /// Whether both make the same pod: a call that is tried again has another clock and other entropy.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let pod = |one: &Self| (one.pod_id.clone(), one.hostname.clone(), one.sysctls.clone(), one.shm_size_bytes, one.shared_pid);
        let users = |one: &Self| (one.uid_mappings.clone(), one.gid_mappings.clone());
        pod(self) == pod(other) && users(self) == users(other) && self.files == other.files && self.interface == other.interface
    }

    fn has_user_namespace(&self) -> bool {
        !self.uid_mappings.is_empty()
    }
}

/// Takes every step, the sandbox last.
pub async fn apply(wanted: &Configuration, hierarchies: &Hierarchies, children: &Children, binary: &Path) -> Result<Sandbox, GuestError> {
    let (own, of_pod) = sort_sysctls(wanted)?;
    guest::set_clock(wanted.clock_ns).map_err(GuestError::io("set the clock"))?;
    guest::add_entropy(&wanted.entropy).map_err(GuestError::io("add entropy"))?;
    scratch::mount().await?;
    if let Some(interface) = wanted.interface.as_ref().filter(|_| !wanted.has_user_namespace()) {
        network::apply(interface).await?;
    }
    own.iter().try_for_each(write_sysctl)?;
    for (path, content) in &wanted.files {
        write_file(path, content).map_err(GuestError::io(format!("write {}", path.display())))?;
    }
    // Programs outside of the pod's namespaces should see it too.
    if !wanted.hostname.is_empty() {
        namespace::set_hostname(&wanted.hostname).map_err(GuestError::io("set the hostname"))?;
    }
    if wanted.has_user_namespace() {
        // Its root, a stranger to ours, has to reach its containers' root file systems.
        let passed = fs::set_permissions(super::RUN_DIR, fs::Permissions::from_mode(0o711));
        passed.map_err(GuestError::io(format!("let others pass {}", super::RUN_DIR)))?;
    }
    let sandbox = Sandbox::create(sandbox_spec(wanted, of_pod), hierarchies, children, binary).await?;
    let moved = match (&wanted.interface, &sandbox.pins.network) {
        (Some(interface), Some(namespace)) => network::apply_in(namespace.clone(), interface).await,
        _ => Ok(()),
    };
    match moved {
        Ok(()) => Ok(sandbox),
        Err(error) => {
            sandbox.destroy().await;
            Err(error)
        }
    }
}

/// The guest's own, and those of the pod's namespaces, which are written in there.
#[allow(clippy::type_complexity)]
fn sort_sysctls(wanted: &Configuration) -> Result<(Vec<Sysctl>, Vec<(String, String)>), GuestError> {
    let (mut own, mut of_pod) = (Vec::new(), Vec::new());
    for (key, value) in &wanted.sysctls {
        match sysctl::locate(key, value).map_err(SandboxError::from)? {
            (_, Some(Scope::Ipc)) => of_pod.push((key.clone(), value.clone())),
            (_, Some(Scope::Network)) if wanted.has_user_namespace() => of_pod.push((key.clone(), value.clone())),
            (sysctl, Some(Scope::Network) | None) => own.push(sysctl),
        }
    }
    Ok((own, of_pod))
}

fn write_sysctl(sysctl: &Sysctl) -> Result<(), GuestError> {
    let path = sysctl.path.display();
    fs::write(&sysctl.path, &sysctl.value).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => {
            GuestError::invalid("sysctls", format!("the guest's kernel has no setting {path}"))
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied => {
            GuestError::invalid("sysctls", format!("the guest's kernel does not take {:?} for {path}: {error}", sysctl.value))
        }
        _ => GuestError::io(format!("write {path}"))(error),
    })
}

/// Whole or not at all, with mode 0644 whatever was there.
fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    fs::write(&draft, content)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o644))?;
    fs::rename(draft, path)
}

fn sandbox_spec(wanted: &Configuration, sysctls: Vec<(String, String)>) -> SandboxSpec {
    let run = Path::new(super::RUN_DIR);
    SandboxSpec {
        pod_id: wanted.pod_id.clone(),
        // The guest's own is the pod's, but root of a user namespace has rights only over one that this owns.
        network: wanted.has_user_namespace(),
        ipc: true,
        uts: true,
        pid: wanted.shared_pid,
        hostname: wanted.hostname.clone(),
        sysctls,
        namespaces_path: run.join("ns"),
        shm_size_bytes: wanted.shm_size_bytes,
        shm_path: run.join("shm"),
        cgroup: LeafSpec { driver: Driver::Cgroupfs, parent: "/pod".to_owned(), owned: true, leaf: "auraed".to_owned() },
        uid_mappings: wanted.uid_mappings.clone(),
        gid_mappings: wanted.gid_mappings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(clock_ns: i64, entropy: &[u8]) -> Configuration {
        Configuration {
            pod_id: "p".to_owned(),
            hostname: "h".to_owned(),
            sysctls: Vec::new(),
            shm_size_bytes: 0,
            shared_pid: false,
            files: vec![("/a".into(), b"b".to_vec())],
            interface: None,
            clock_ns,
            entropy: entropy.to_vec(),
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
        }
    }

    #[test]
    fn a_second_try_is_the_same_pod() {
        let first = configuration(1, b"x");
        assert!(first.is_same_as(&configuration(2, b"y")));
        let mut other = configuration(1, b"x");
        other.files[0].1 = b"c".to_vec();
        assert!(!first.is_same_as(&other));
    }

    #[test]
    fn settings_of_the_pods_namespaces_are_written_there() {
        let sysctls = ["kernel.msgmax", "net.core.somaxconn", "vm.swappiness"].map(|key| (key.to_owned(), "1".to_owned()));
        let mut wanted = Configuration { sysctls: sysctls.to_vec(), ..configuration(1, b"x") };
        let (own, of_pod) = sort_sysctls(&wanted).unwrap();
        assert_eq!(of_pod, [("kernel.msgmax".to_owned(), "1".to_owned())]);
        assert_eq!(own.len(), 2);
        wanted.uid_mappings = vec![IdMapping { container_id: 0, host_id: 1, size: 1 }];
        assert_eq!(sort_sysctls(&wanted).unwrap().1.len(), 2);
        wanted.sysctls = vec![("vm/../x".to_owned(), "1".to_owned())];
        assert!(sort_sysctls(&wanted).is_err());
    }

    #[test]
    fn a_setting_that_is_not_there_is_the_requests_fault() {
        let missing = Sysctl { path: "/proc/sys/no/such/setting".into(), value: "1".to_owned() };
        assert!(matches!(write_sysctl(&missing), Err(GuestError::Invalid { field: "sysctls", .. })));
    }

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        for content in [&b"first, and longer"[..], b"second"] {
            write_file(&path, content).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
