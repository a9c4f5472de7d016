//! `modprobe`: the guest kernel's request for a module, answered from the system disk.
//!
//! ```text
//!  kernel: request_module("rtnl-link-wireguard") ──► /sbin/modprobe -q -- rtnl-link-wireguard
//!    ──► modules.dep, modules.alias, modules.builtin ──► what it needs first, then the module itself
//! ```
//! The exit code is all that the kernel looks at: 0 when the module is there. It then looks for what it missed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::modules::{Catalogue, Plan};
use crate::sys::module;

/// Name of the program that the kernel starts.
pub const PROGRAM: &str = "modprobe";
/// On the system disk, which no container sees.
const MODULES: &str = "/lib/modules";
/// Names of modules to load at boot; not there for a kernel that needs none.
const LISTED: &str = "/etc/modules";
/// Modules are in a directory of this name.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
enum ModprobeError {
    #[error("usage: modprobe [-q] [--] NAME")]
    Usage,
    #[error("{0}: no module of this kernel")]
    Unknown(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl ModprobeError {
    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

/// Runs with the arguments after the program's name.
pub fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        // Kernels ask for much that does not exist.
        Err(ModprobeError::Unknown(_)) if args.iter().any(|arg| arg == "-q") => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("modprobe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> Result<(), ModprobeError> {
    let name = args.iter().filter_map(|arg| arg.to_str()).rfind(|arg| !arg.starts_with('-')).ok_or(ModprobeError::Usage)?;
    request(name)
}

/// Loads what the guest's files say that this kernel needs and never asks for: there is nobody here who looks for drivers of the devices
/// that there are. A module that cannot be loaded is told, and missed by whatever comes to need it.
pub fn load_listed() {
    let listed = match fs::read_to_string(LISTED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        other => other.unwrap_or_else(|error| {
            eprintln!("auraed init: {LISTED}: {error}");
            String::new()
        }),
    };
    for name in listed.split_whitespace() {
        if let Err(error) = request(name) {
            eprintln!("auraed init: modules: {error}");
        }
    }
}

fn request(name: &str) -> Result<(), ModprobeError> {
    let release = fs::read_to_string(RELEASE).map_err(|error| ModprobeError::io(RELEASE, error))?.trim_end().to_owned();
    let modules = Path::new(MODULES).join(release);
    let catalogue = Catalogue {
        dependencies: read(&modules, "modules.dep")?,
        aliases: read(&modules, "modules.alias")?,
        builtin: read(&modules, "modules.builtin")?,
    };
    match catalogue.plan(name) {
        Plan::Unknown => Err(ModprobeError::Unknown(name.to_owned())),
        Plan::Builtin => Ok(()),
        Plan::Load(files) => files.into_iter().try_for_each(|file| load(&modules, file)),
    }
}

fn read(modules: &Path, file: &str) -> Result<String, ModprobeError> {
    let path = modules.join(file);
    fs::read_to_string(&path).map_err(|error| ModprobeError::io(path.display().to_string(), error))
}

fn load(modules: &Path, file: &str) -> Result<(), ModprobeError> {
    match File::open(modules.join(file)).and_then(|file| module::load(&file)) {
        // Somebody else asked for it too.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(ModprobeError::io(format!("load {file}"), error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{ModprobeError, run};

    #[test]
    fn wants_a_name() {
        assert!(matches!(run(&["-q".into(), "--".into()]), Err(ModprobeError::Usage)));
    }
}
