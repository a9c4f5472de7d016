//! A pod's user namespace: which of the host's ids the pod's ids are.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// One line of an id mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    pub container_id: u32,
    pub host_id: u32,
    pub size: u32,
}

/// A user namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// Where it is pinned.
    pub path: PathBuf,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

impl UserNamespace {
    /// What a mount is mapped with.
    pub fn open(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.path)?.into())
    }

    /// The host's ids of a user and group of the pod, both of which have to be mapped.
    pub fn on_host(&self, uid: u32, gid: u32) -> io::Result<(u32, u32)> {
        let not_mapped = |what: &str, id: u32| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{what} {id} is not mapped in the pod's user namespace"))
        };
        let host_uid = translate(&self.uid_mappings, uid).ok_or_else(|| not_mapped("uid", uid))?;
        Ok((host_uid, translate(&self.gid_mappings, gid).ok_or_else(|| not_mapped("gid", gid))?))
    }
}

/// What `id` of the namespace is outside.
pub fn translate(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|line| {
        let offset = id.checked_sub(line.container_id).filter(|offset| *offset < line.size)?;
        line.host_id.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_translated_and_those_beyond_refused() {
        let lines = |host_id, size| vec![IdMapping { container_id: 0, host_id, size }];
        let users = UserNamespace { path: "/ns/user".into(), uid_mappings: lines(1000, 10), gid_mappings: lines(2000, 5) };
        assert_eq!(users.on_host(0, 0).unwrap(), (1000, 2000));
        assert_eq!(users.on_host(9, 4).unwrap(), (1009, 2004));
        assert!(users.on_host(10, 0).unwrap_err().to_string().contains("uid 10"));
        assert!(users.on_host(0, 5).unwrap_err().to_string().contains("gid 5"));
        assert_eq!(translate(&[IdMapping { container_id: 5, host_id: u32::MAX, size: 3 }], 6), None);
    }
}
