//! Processes: being their supervisor, waiting for them, signalling them without mistaking one for another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub pid: i32,
    /// Its code; 128 + n when signal n ended it.
    pub code: i32,
}

/// Leads a session of its own, adopts orphaned descendants, and gives new files the modes they are opened with.
pub fn become_supervisor() -> io::Result<()> {
    match nix::unistd::setsid() {
        // A process group leader cannot; one that leads a group without a terminal need not.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    nix::sys::prctl::set_child_subreaper(true)?;
    umask(Mode::from_bits_truncate(0o022));
    Ok(())
}

/// The next child that has ended and was not waited for; `None` when there is none now.
pub fn reap() -> Option<Ended> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some(Ended { pid: pid.as_raw(), code }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Some(Ended { pid: pid.as_raw(), code: 128 + signal as i32 }),
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// A handle of a process that stays this process's when its number is used again.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Of a child that has not been waited for.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
    }

    /// Success also when the process has ended. `signal` is any of 1…64, real-time ones included.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: plain integers and a null siginfo; the descriptor is open for the call.
        let result = unsafe {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&self.0.as_fd());
            libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        match io::Error::last_os_error() {
            error if result < 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal by number, real-time ones included. A process that has ended needs none.
pub fn send_signal(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: plain integers.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Our standard output becomes /dev/null.
pub fn close_stdout() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    Ok(())
}

/// Every signal does what it does by default, and none is blocked: what is ignored or blocked stays so across exec.
pub fn restore_signals() -> io::Result<()> {
    /// The kernel's own structure; all zeros is the default action.
    #[repr(C)]
    struct Action([usize; 4]);
    let default = Action([0; 4]);
    for number in 1..=64 {
        // By the kernel's call, for libc keeps two signals to itself. SIGKILL and SIGSTOP are refused, and are never ignored.
        // SAFETY: the structure outlives the call, installs no handler code, and a signal set has 8 bytes.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const default, std::ptr::null_mut::<Action>(), 8) };
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Gives memory that the allocator holds and nobody uses back to the kernel.
pub fn trim_heap() {
    // SAFETY: takes no pointers; the allocator locks itself.
    unsafe { libc::malloc_trim(0) };
}

/// Writing to a closed pipe is an error, not the end.
pub fn ignore_sigpipe() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler code.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
