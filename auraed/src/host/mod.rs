//! `auraed host`: what the daemon needs from the kernel and cannot do itself, one short process per task.
//!
//! ```text
//!  mount-layer --blob FILE --target DIR       an image layer, read-only; again is success
//!  unmount     --target DIR                   everything mounted at and below it; nothing mounted is success
//!  clean-pod   --dir DIR [--cgroup PATH …]    what a pod leaves whose auraed died: processes, mounts, cgroups
//!  remove-tree --path DIR                     a tree, without following links or crossing mounts
//!  try-user-namespace --dir DIR               whether pods kept below the directory can have user namespaces; leaves nothing
//! ```
//!
//! Success: one JSON object on stdout, exit code 0. Failure: one line on stderr, exit code 1 (2: wrong command line).
//! Every task is idempotent, so a daemon that was killed runs it again.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::tree::RemoveError;

mod cgroups;
mod clean_pod;
pub(crate) mod layer;
mod loop_device;
mod mount_table;
mod unmount;
mod user_namespace;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The task cannot be done on what is there.
    #[error("{path}: {reason}")]
    State {
        /// What is in the way.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The kernel refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Processes survived everything that was tried.
    #[error("{count} processes in {path} are still there after {waited_ms} ms")]
    StillAlive {
        /// Their cgroup.
        path: PathBuf,
        /// How many.
        count: usize,
        /// How long they were given.
        waited_ms: u128,
    },
    /// A tree could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
}

impl HostError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }
}

/// Runs `auraed host` with the arguments after its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match run(args) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("auraed host: {error}");
            ExitCode::from(if matches!(error, HostError::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run(args: Vec<OsString>) -> Result<Value, HostError> {
    let mut args = args.into_iter();
    let task = args.next().and_then(|task| task.into_string().ok()).unwrap_or_default();
    let known: &[&str] = match task.as_str() {
        "mount-layer" => &["--blob", "--target"],
        "unmount" => &["--target"],
        "clean-pod" => &["--dir", "--cgroup"],
        "remove-tree" => &["--path"],
        "try-user-namespace" => &["--dir"],
        _ => return Err(HostError::Usage("name a task: mount-layer, unmount, clean-pod, remove-tree or try-user-namespace".into())),
    };
    let given = read_flags(&task, known, args)?;
    let one = |flag: &str| match given.iter().filter(|(name, _)| name == flag).collect::<Vec<_>>()[..] {
        [(_, path)] => Ok(path.as_path()),
        _ => Err(HostError::Usage(format!("{task}: {flag} must be given once"))),
    };
    match task.as_str() {
        "mount-layer" => layer::mount(one("--blob")?, one("--target")?).map(|how| json!({ "mounted": how })),
        "unmount" => unmount::below(one("--target")?).map(|count| json!({ "unmounted": count })),
        "remove-tree" => {
            crate::tree::remove_checked(one("--path")?)?;
            Ok(json!({ "removed": true }))
        }
        "try-user-namespace" => user_namespace::attempt(one("--dir")?).map(|()| json!({ "supported": true })),
        _ => {
            let cgroups: Vec<_> = given.iter().filter(|(name, _)| name == "--cgroup").map(|(_, path)| path.clone()).collect();
            clean_pod::clean(one("--dir")?, &cgroups)
        }
    }
}

fn read_flags(task: &str, known: &[&str], mut args: impl Iterator<Item = OsString>) -> Result<Vec<(String, PathBuf)>, HostError> {
    let mut given = Vec::new();
    while let Some(flag) = args.next() {
        let Some(&name) = known.iter().find(|name| flag == **name) else {
            return Err(HostError::Usage(format!("{task}: unknown flag {flag:?}, known are {}", known.join(", "))));
        };
        let Some(value) = args.next() else { return Err(HostError::Usage(format!("{task}: {name} needs a value"))) };
        let path = PathBuf::from(value);
        if !path.is_absolute() || path.parent().is_none() || path.components().any(|part| part.as_os_str() == "..") {
            return Err(HostError::Usage(format!("{task}: {name} {path:?} must be an absolute path below the root, without '..'")));
        }
        given.push((name.to_owned(), path));
    }
    Ok(given)
}
