//! What is asked of StartVm, checked.

use std::path::{Component, Path, PathBuf};

use super::errors::VmError;
use crate::cgroup;

const MAX_ARGUMENTS: usize = 1024;
const MAX_ARGUMENTS_BYTES: usize = 128 * 1024;
const MAX_FILES: usize = 64;
const MAX_PATH_BYTES: usize = 4095;
/// First names in QEMU's root that have their content from elsewhere.
const TAKEN: [&str; 13] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "dev", "proc", "sys", "layers", "run", "scratch.img"];

/// The same request again is answered with the same VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub files: Vec<VmFile>,
    pub run_path: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// Below each hierarchy's root; empty: the pod's leaf.
    pub cgroup: String,
    pub kvm: bool,
    pub scratch: Option<Scratch>,
    /// The machine goes on from there instead of booting.
    pub saved_state: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFile {
    pub host_path: PathBuf,
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    pub template: PathBuf,
    pub path: PathBuf,
}

impl VmSpec {
    pub fn check(&self) -> Result<(), VmError> {
        clean("program", &self.program)?;
        clean("run_path", &self.run_path)?;
        if self.args.len() > MAX_ARGUMENTS || self.args.iter().map(String::len).sum::<usize>() > MAX_ARGUMENTS_BYTES {
            return Err(VmError::invalid("args", format!("must be at most {MAX_ARGUMENTS} of {MAX_ARGUMENTS_BYTES} bytes together")));
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(VmError::invalid("args", "must not hold a zero byte"));
        }
        if self.files.len() > MAX_FILES {
            return Err(VmError::invalid("files", format!("must be at most {MAX_FILES}")));
        }
        self.files.iter().try_for_each(VmFile::check)?;
        // Root in the VMM would make its mount namespace all that holds it.
        if self.uid == 0 || self.uid == u32::MAX {
            return Err(VmError::invalid("uid", "must be an unprivileged user"));
        }
        if self.gid == 0 || self.gid == u32::MAX {
            return Err(VmError::invalid("gid", "must be an unprivileged group"));
        }
        if !self.cgroup.is_empty() {
            cgroup::checked_path(&self.cgroup)?;
        }
        if let Some(scratch) = &self.scratch {
            clean("scratch_template", &scratch.template)?;
            clean("scratch_path", &scratch.path)?;
        }
        if let Some(state) = &self.saved_state {
            clean("saved_state_path", state)?;
        }
        Ok(())
    }
}

impl VmFile {
    fn check(&self) -> Result<(), VmError> {
        clean("files.host_path", &self.host_path)?;
        clean("files.path", &self.path)?;
        match self.path.components().nth(1) {
            Some(Component::Normal(first)) if !TAKEN.iter().any(|taken| first == *taken) => Ok(()),
            _ => Err(VmError::invalid("files.path", format!("must not be below /{}", TAKEN.join(", /")))),
        }
    }
}

/// An absolute path without `.`, `..`, doubled slashes or surprises.
fn clean(field: &'static str, path: &Path) -> Result<(), VmError> {
    let text = path.as_os_str().as_encoded_bytes();
    let plain = path.is_absolute()
        && text.len() > 1
        && text.len() <= MAX_PATH_BYTES
        && !text.contains(&0)
        && path.components().skip(1).all(|part| matches!(part, Component::Normal(_)))
        && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    if plain { Ok(()) } else { Err(VmError::invalid(field, "must be an absolute path without `.`, `..` and doubled slashes")) }
}

/// A name as a layer or a volume has it: lower-case letters, digits, `-` and `.`, at most 64, beginning with one of the first two.
pub fn check_name(field: &'static str, name: &str) -> Result<(), VmError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    if plain && name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(VmError::invalid(field, "must be 1 to 64 lower-case letters, digits, `-` and `.`, beginning with a letter or digit"))
    }
}

/// Of an ExposeLayer.
pub fn check_layer(name: &str, host_path: &Path) -> Result<(), VmError> {
    check_name("name", name)?;
    clean("host_path", host_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            program: "/usr/bin/qemu".into(),
            args: vec!["-S".to_owned()],
            files: vec![VmFile { host_path: "/boot/kernel".into(), path: "/boot/kernel".into() }],
            run_path: "/pod/run".into(),
            uid: 1000,
            gid: 1000,
            cgroup: "/vm/1".to_owned(),
            kvm: false,
            scratch: Some(Scratch { template: "/t".into(), path: "/p".into() }),
            saved_state: Some("/s".into()),
        }
    }

    #[test]
    fn what_could_mean_something_else_is_refused_by_name() {
        assert!(spec().check().is_ok());
        let refused = |field: &str, change: fn(&mut VmSpec)| {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.check().unwrap_err().to_string();
            assert!(error.starts_with(field), "{field}: {error}");
        };
        refused("program", |spec| spec.program = "qemu".into());
        refused("run_path", |spec| spec.run_path = "/a/../b".into());
        refused("run_path", |spec| spec.run_path = "/a//b".into());
        refused("args", |spec| spec.args = vec![String::new(); MAX_ARGUMENTS + 1]);
        refused("args", |spec| spec.args = vec!["a\0b".to_owned()]);
        refused("files", |spec| spec.files = vec![spec.files[0].clone(); MAX_FILES + 1]);
        refused("files.path", |spec| spec.files[0].path = "/usr/bin/env".into());
        refused("files.path", |spec| spec.files[0].path = "/".into());
        refused("files.host_path", |spec| spec.files[0].host_path = "x".into());
        refused("uid", |spec| spec.uid = 0);
        refused("gid", |spec| spec.gid = 0);
        refused("scratch_path", |spec| spec.scratch = Some(Scratch { template: "/t".into(), path: "p".into() }));
        refused("saved_state_path", |spec| spec.saved_state = Some("s".into()));
        refused("cgroup", |spec| spec.cgroup = "/a/../b".to_owned());
    }

    #[test]
    fn names_are_file_names() {
        for good in ["a", "sha256-0f.erofs", "0"] {
            assert!(check_name("name", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "a_b", &"a".repeat(65)] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
    }
}
