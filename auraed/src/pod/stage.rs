//! What a container in a user namespace is lent: the sources of its mounts and its devices, where its root can reach them.
//!
//! The OCI runtime makes a container's mounts as root of the pod's user namespace, who passes no private directory of the host, makes no
//! device node and maps no mount's ids. All that is done for it beforehand, and the specification changed to name what was made:
//!
//! ```text
//!  lent/       a tmpfs for as long as the container is being created; afterwards it has mounts of its own
//!  ├ m0 …      the source of a bind mount, by the mount's place in the specification, its ids mapped when the mount asks for it
//!  └ d0 …      the node of a device
//! ```

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use rustix::fs::{CWD, FileType, Mode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::idmap::{IdMapping, UserNamespace};
use crate::sys::mounts::{self, Propagation};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("oci_spec.{field}: {problem}")]
    Invalid { field: String, problem: String },
    #[error("mount at {destination}: the ids of {path} cannot be mapped: {source}")]
    Unmappable { destination: String, path: String, source: io::Error },
    #[error("could not {action}: {source}")]
    Io { action: String, source: io::Error },
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> StageError {
    move |source| StageError::Io { action: action.into(), source }
}

/// Everything lent to one container. Dropped, it is gone: what the container has mounted by then stays its own.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    destination: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    source: PathBuf,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    uid_mappings: Vec<Mapping>,
    #[serde(default)]
    gid_mappings: Vec<Mapping>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    major: u32,
    minor: u32,
    #[serde(default = "everybody")]
    file_mode: u32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

fn everybody() -> u32 {
    0o666
}

impl Mount {
    fn has(&self, options: &[&str]) -> bool {
        self.options.iter().any(|option| options.contains(&option.as_str()))
    }

    fn is_bind(&self) -> bool {
        self.kind == "bind" || self.has(&["bind", "rbind"])
    }

    /// None: mounts are to pass in both directions.
    fn propagation(&self) -> Option<Propagation> {
        if self.has(&["shared", "rshared"]) {
            return None;
        }
        Some(if self.has(&["slave", "rslave"]) { Propagation::Receive } else { Propagation::None })
    }

    /// The pod's own mapping, or an error: no other would make sense of the container's ids.
    fn is_mapped(&self, field: &str, users: &UserNamespace) -> Result<bool, StageError> {
        if self.uid_mappings.is_empty() && self.gid_mappings.is_empty() {
            return Ok(false);
        }
        if same(&self.uid_mappings, &users.uid_mappings) && same(&self.gid_mappings, &users.gid_mappings) {
            return Ok(true);
        }
        let problem = "uidMappings and gidMappings must be those of the pod's user namespace".to_owned();
        Err(StageError::Invalid { field: field.to_owned(), problem })
    }
}

fn same(asked: &[Mapping], pods: &[IdMapping]) -> bool {
    let line = |line: &Mapping| IdMapping { container_id: line.container_id, host_id: line.host_id, size: line.size };
    asked.iter().map(line).eq(pods.iter().copied())
}

impl Stage {
    /// Makes what the specification names, at `path`, and changes the specification to name that. Blocking.
    pub fn set(path: &Path, spec: &mut Value, users: &UserNamespace) -> Result<Self, StageError> {
        fs::create_dir_all(path).map_err(failed(format!("make {}", path.display())))?;
        let stage = Self { path: path.to_owned() };
        // Device nodes are to work here: a tmpfs of the host may forbid them.
        mounts::small_tmpfs(path, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "size=64k,mode=0711")
            .and_then(|()| mounts::make_private(path))
            .map_err(failed(format!("mount a tmpfs at {}", path.display())))?;
        stage.set_mounts(spec, users)?;
        stage.set_devices(spec, users)?;
        Ok(stage)
    }

    fn set_mounts(&self, spec: &mut Value, users: &UserNamespace) -> Result<(), StageError> {
        for (index, mount) in spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            let field = format!("mounts[{index}]");
            let view: Mount = read(mount, &field)?;
            if !view.is_bind() {
                continue;
            }
            let target = self.path.join(format!("m{index}"));
            lend(&view, &field, &target, users)?;
            if let Some(fields) = mount.as_object_mut() {
                fields.insert("source".to_owned(), json!(target));
                fields.remove("uidMappings");
                fields.remove("gidMappings");
            }
        }
        Ok(())
    }

    /// A device becomes the bind mount of its node.
    fn set_devices(&self, spec: &mut Value, users: &UserNamespace) -> Result<(), StageError> {
        let Some(devices) = spec.pointer_mut("/linux/devices").map(Value::take) else { return Ok(()) };
        let devices: Vec<Device> = read(&devices, "linux.devices")?;
        if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
            linux.remove("devices");
        }
        let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) else { return Ok(()) };
        for (index, device) in devices.iter().enumerate() {
            let node = self.path.join(format!("d{index}"));
            make_node(device, &node, users).map_err(failed(format!("make the device {}", device.path)))?;
            mounts.push(json!({ "destination": device.path, "type": "bind", "source": node, "options": ["bind", "nosuid", "noexec"] }));
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = mounts::unmount_all(&self.path).and_then(|()| fs::remove_dir(&self.path)) {
            tracing::warn!(%error, path = %self.path.display(), "what was lent to a container stays mounted");
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(value: &Value, field: &str) -> Result<T, StageError> {
    T::deserialize(value).map_err(|error| StageError::Invalid { field: field.to_owned(), problem: error.to_string() })
}

fn lend(mount: &Mount, field: &str, target: &Path, users: &UserNamespace) -> Result<(), StageError> {
    let source = mount.source.display().to_string();
    let Some(propagation) = mount.propagation() else {
        let problem = "mounts made in a user namespace cannot be shared with the host".to_owned();
        return Err(StageError::Invalid { field: format!("{field}.options"), problem });
    };
    let copy = |path: &Path| if mount.has(&["rbind"]) { mounts::clone_tree(path) } else { mounts::detached(path) };
    let tree = mount.source.canonicalize().and_then(|path| copy(&path)).map_err(failed(format!("look at {source}")))?;
    if mount.is_mapped(field, users)? {
        let user_namespace = users.open().map_err(failed("open the pod's user namespace"))?;
        mounts::map_ids(tree.as_fd(), user_namespace.as_fd()).map_err(|error| {
            let (destination, path) = (mount.destination.clone(), source.clone());
            StageError::Unmappable { destination, path, source: error }
        })?;
    }
    let kind = rustix::fs::fstat(&tree).map(|stat| FileType::from_raw_mode(stat.st_mode));
    mounts::isolate(tree.as_fd(), propagation)
        .and_then(|()| match kind? {
            FileType::Directory => fs::create_dir(target),
            _ => File::create_new(target).map(drop),
        })
        .and_then(|()| mounts::attach(tree.as_fd(), target))
        .map_err(failed(format!("lend {source} to the container")))
}

/// Owned as in a container without a user namespace, but by the pod's ids.
fn make_node(device: &Device, path: &Path, users: &UserNamespace) -> io::Result<()> {
    let kind = if device.kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let (uid, gid) = users.on_host(device.uid, device.gid)?;
    rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, rustix::fs::makedev(device.major, device.minor))?;
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, Permissions::from_mode(device.file_mode & 0o777))
}
