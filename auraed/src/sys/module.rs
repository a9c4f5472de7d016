//! Kernel modules.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Loads the module in `file`, without parameters. A module that is there already is `AlreadyExists`.
pub fn load(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and the parameters are a terminated string that outlives it.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
