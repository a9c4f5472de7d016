//! This binary where no container can change it.
//!
//! A container's first process is made by this binary and can reach it through `/proc/PID/exe` before its own program
//! runs (CVE-2019-5736). What it reaches must not be writable: a memfd sealed against every change, or a file on EROFS,
//! which knows no writing whoever asks and however it is mounted.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

const SELF: &str = "/proc/self/exe";
const MFD_EXEC: u32 = 0x10;
const EROFS_SUPER_MAGIC_V1: rustix::fs::FsWord = 0xE0F5_E1E2;

fn every_seal() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Whether nobody can change what this process was started from. A file that knows no seals counts as unsealed.
pub fn is_protected() -> io::Result<bool> {
    let exe = File::open(SELF)?;
    if rustix::fs::fstatfs(&exe)?.f_type == EROFS_SUPER_MAGIC_V1 {
        return Ok(true);
    }
    match rustix::fs::fcntl_get_seals(&exe) {
        Ok(seals) => Ok(seals.contains(every_seal())),
        Err(rustix::io::Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies this binary into a sealed memfd. Costs a copy of the whole binary: a supervisor makes it once and starts
/// `/proc/self/fd/N` ever after. The descriptor is close-on-exec, which does not hinder executing it by that path.
pub fn sealed_copy() -> io::Result<OwnedFd> {
    let exe = File::open(SELF)?;
    let size = exe.metadata()?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 refuse the flag that says the copy will be executed.
    let copy = rustix::fs::memfd_create("auraed", flags | MemfdFlags::from_bits_retain(MFD_EXEC))
        .or_else(|_| rustix::fs::memfd_create("auraed", flags))?;
    let mut left = size;
    while left > 0 {
        let sent = rustix::fs::sendfile(&copy, &exe, None, usize::try_from(left).unwrap_or(usize::MAX))?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the binary became shorter while it was copied"));
        }
        left = left.saturating_sub(sent as u64);
    }
    rustix::fs::fcntl_add_seals(copy.as_fd(), every_seal())?;
    Ok(copy)
}

/// Replaces this process by the sealed copy, with the same arguments and environment. Returns only on failure.
pub fn exec_sealed() -> io::Error {
    match try_exec() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_exec() -> io::Result<std::convert::Infallible> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let copy = sealed_copy()?;
    let args = std::env::args_os().map(|arg| CString::new(arg.into_vec())).collect::<Result<Vec<_>, _>>()?;
    let env = std::env::vars_os()
        .map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(nix::unistd::execve(&path, &args, &env)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_program_on_an_ordinary_file_system_is_not_protected() {
        assert!(!super::is_protected().unwrap());
    }
}
