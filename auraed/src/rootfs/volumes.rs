//! Image volumes: a writable directory each, filled with what the image has at that path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::root::Root;
use super::{RootfsError, unusable};
use crate::tree;

/// Makes one directory below `into` per volume and answers their paths in the same order. Directories of an earlier call are kept. One
/// that the image has nothing for gets `owner`.
pub fn seed(root: &Root, volumes: &[String], into: &Path, owner: Option<(u32, u32)>) -> Result<Vec<String>, RootfsError> {
    fs::create_dir_all(into).map_err(|error| RootfsError::io(format!("make {}", into.display()), error))?;
    volumes.iter().enumerate().map(|(index, volume)| seed_one(root, volume, &into.join(index.to_string()), owner)).collect()
}

fn seed_one(root: &Root, volume: &str, directory: &Path, owner: Option<(u32, u32)>) -> Result<String, RootfsError> {
    let fail = |error: io::Error| RootfsError::io(format!("seed image volume {volume:?}"), error);
    let answer = directory.to_str().map(str::to_owned);
    let answer = answer.ok_or_else(|| RootfsError::invalid("volumes_path", directory.to_string_lossy(), "is not UTF-8"))?;
    if Path::new(volume).components().all(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(RootfsError::invalid("image_volumes", volume, "names no directory below the root"));
    }
    if directory.exists() {
        return Ok(answer);
    }
    let partial = partial_name(directory);
    tree::remove(&partial).map_err(fail)?;
    fs::create_dir(&partial).map_err(fail)?;
    match root.resolve(volume, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(source) => tree::copy(source, &partial).map_err(fail)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_plain(&partial, owner).map_err(fail)?,
        Err(error) => return Err(unusable("image_volumes", volume, error)),
    }
    // A directory under its final name is complete.
    fs::rename(&partial, directory).map_err(fail)?;
    Ok(answer)
}

fn partial_name(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn make_plain(directory: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::lchown(directory, Some(uid), Some(gid))?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}
