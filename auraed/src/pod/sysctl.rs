//! Kernel settings of a pod: only those that belong to a namespace the pod has of its own.

use std::path::PathBuf;

use thiserror::Error;

/// Namespaces a setting can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Network,
    Ipc,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SysctlError {
    #[error("sysctl {key:?} is not a setting's name: write a.b.c or a/b/c with letters, digits, `_` and `-`")]
    BadKey { key: String },
    #[error("sysctl {key:?} belongs to no namespace of a pod: only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* do")]
    NotNamespaced { key: String },
    #[error("sysctl {key:?} is the host's, for the pod uses the host's {scope:?} namespace")]
    HostNamespace { key: String, scope: Scope },
    #[error("the value of sysctl {key:?} holds a line break or a zero byte")]
    BadValue { key: String },
}

/// A setting that may be written inside the pod's namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    pub path: PathBuf,
    pub value: String,
}

/// Checks one setting of a pod on a host. `own_network` and `own_ipc`: the pod has such a namespace of its own.
pub fn check(key: &str, value: &str, own_network: bool, own_ipc: bool) -> Result<Sysctl, SysctlError> {
    let (sysctl, scope) = locate(key, value)?;
    let scope = scope.ok_or_else(|| SysctlError::NotNamespaced { key: key.to_owned() })?;
    let own = match scope {
        Scope::Network => own_network,
        Scope::Ipc => own_ipc,
    };
    if !own {
        return Err(SysctlError::HostNamespace { key: key.to_owned(), scope });
    }
    Ok(sysctl)
}

/// Checks one setting of a machine that is all the pod's, and says of which kind of namespace it is, if of any.
pub fn locate(key: &str, value: &str) -> Result<(Sysctl, Option<Scope>), SysctlError> {
    let parts = parts(key).ok_or_else(|| SysctlError::BadKey { key: key.to_owned() })?;
    if value.contains(['\n', '\0']) {
        return Err(SysctlError::BadValue { key: key.to_owned() });
    }
    let sysctl = Sysctl { path: PathBuf::from("/proc/sys").join(parts.join("/")), value: value.to_owned() };
    Ok((sysctl, scope(&parts)))
}

/// With `/` as the first separator a `.` is part of a name (an interface `eth0.100`); with `.` first, a `/` stands for that dot.
fn parts(key: &str) -> Option<Vec<String>> {
    let separator = key.chars().find(|character| matches!(character, '.' | '/'))?;
    let other = if separator == '.' { '/' } else { '.' };
    key.split(separator)
        .map(|part| {
            let name = part.replace(other, ".");
            let plain = name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.'));
            (plain && !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && !name.contains("..")).then_some(name)
        })
        .collect()
}

fn scope(parts: &[String]) -> Option<Scope> {
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["net", _, ..] => Some(Scope::Network),
        ["kernel", name] if *name == "sem" || name.starts_with("shm") || name.starts_with("msg") => Some(Scope::Ipc),
        ["fs", "mqueue", _] => Some(Scope::Ipc),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaced_settings_in_both_spellings() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
            ("net.ipv4.conf.eth0/100.rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
            ("kernel.shm_rmid_forced", "/proc/sys/kernel/shm_rmid_forced"),
            ("kernel.msgmax", "/proc/sys/kernel/msgmax"),
            ("kernel/sem", "/proc/sys/kernel/sem"),
            ("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max"),
        ] {
            assert_eq!(check(key, "1", true, true).unwrap().path, PathBuf::from(path), "{key}");
        }
    }

    #[test]
    fn names_that_reach_elsewhere_are_refused() {
        for key in [
            "",
            "net",
            ".",
            "net.",
            ".net.x",
            "net..x",
            "net/../kernel/core_pattern",
            "net/ipv4/..",
            "net/./x",
            "net/ipv4/../../kernel/core_pattern",
            "net.ipv4/../x",
            "net//x",
            "net.ipv4.a b",
            "net.ipv4.a\n",
            "net.ipv4.a+b",
        ] {
            assert!(matches!(check(key, "1", true, true), Err(SysctlError::BadKey { .. })), "{key:?}");
        }
        for key in [
            "kernel.core_pattern",
            "kernel.shm.x",
            "kernel.sem.x",
            "vm.swappiness",
            "fs.mqueue",
            "fs.file-max",
            "kernel.hostname",
            "kernel/semx",
        ] {
            assert!(matches!(check(key, "1", true, true), Err(SysctlError::NotNamespaced { .. })), "{key:?}");
        }
    }

    #[test]
    fn settings_of_the_hosts_namespaces_are_refused() {
        assert!(matches!(check("net.core.somaxconn", "1", false, true), Err(SysctlError::HostNamespace { scope: Scope::Network, .. })));
        assert!(matches!(check("kernel.shmmax", "1", true, false), Err(SysctlError::HostNamespace { scope: Scope::Ipc, .. })));
    }

    #[test]
    fn a_machine_of_its_own_has_every_setting() {
        let located = |key| locate(key, "1").map(|(sysctl, scope)| (sysctl.path, scope));
        assert_eq!(located("vm.swappiness"), Ok((PathBuf::from("/proc/sys/vm/swappiness"), None)));
        assert_eq!(located("kernel.shmmax"), Ok((PathBuf::from("/proc/sys/kernel/shmmax"), Some(Scope::Ipc))));
        assert!(matches!(located("vm/../../self"), Err(SysctlError::BadKey { .. })));
    }

    #[test]
    fn values_are_one_line() {
        // A value with "+" in CRI-O's pinns began the next setting (CVE-2022-0811): here it is only a value.
        assert!(check("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x", true, true).is_ok());
        for value in ["1\nx", "1\0"] {
            assert!(matches!(check("net.a.b", value, true, true), Err(SysctlError::BadValue { .. })));
        }
    }
}
