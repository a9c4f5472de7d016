//! Descriptors: pipes, flags, descriptor passing, terminal size.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::unix::AsyncFd;

/// A pipe, read end first; both ends close on exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Reads and writes of this open file description no longer block.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::unistd::read(fd, buffer)?)
}

pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::unistd::write(fd, bytes)?)
}

/// Receives one descriptor sent with SCM_RIGHTS. More than one is against the protocol; those beyond the first are closed.
pub fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let received = receive_fds(socket, &mut [0u8; 4096])?.1;
    received.into_iter().next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor in the message"))
}

/// Most descriptors of one message.
const MAX_PASSED: usize = 8;

/// Receives bytes and the descriptors that were sent with them.
pub fn receive_fds(socket: BorrowedFd<'_>, payload: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut slices = [IoSliceMut::new(payload)];
    let mut control = nix::cmsg_space!([RawFd; MAX_PASSED]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            for descriptor in descriptors {
                // SAFETY: the kernel has just installed this descriptor for us and nobody else knows its number.
                received.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    Ok((message.bytes, received))
}

/// Sends a byte with descriptors.
pub fn send_fds(socket: BorrowedFd<'_>, byte: u8, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, &[byte], descriptors).map(drop)
}

/// Sends bytes, or their beginning, with descriptors; how many bytes it were.
pub fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &[ControlMessage::ScmRights(&raw)], MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Gives the descriptors the numbers from `first` on, open across exec, and standard input and output /dev/null and standard error. What
/// else is open will close on exec. Only for a process that is about to execute another program.
pub fn arrange_for_exec(descriptors: Vec<OwnedFd>, first: RawFd) -> io::Result<()> {
    /// Above every number that is about to be given.
    const ASIDE: RawFd = 64;
    let aside = descriptors.iter().map(|descriptor| fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(ASIDE))).collect::<Result<Vec<_>, _>>()?;
    drop(descriptors);
    let null = std::fs::File::options().read(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    drop(null);
    nix::unistd::dup2_stdout(io::stderr())?;
    let last = first + i32::try_from(aside.len()).map_err(io::Error::other)?;
    // SAFETY: no owner of a descriptor whose number is taken over is used or dropped after this: the caller only executes another program,
    // or reports a failure on a descriptor above and ends.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked < 0 {
        return Err(io::Error::last_os_error());
    }
    for (number, descriptor) in (first..last).zip(aside) {
        // SAFETY: as above.
        if unsafe { libc::dup2(descriptor, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The same open file with a number above those that `arrange_for_exec` gives.
pub fn lifted(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(128))?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// TIOCSWINSZ on a terminal's master.
pub fn set_window_size(terminal: RawFd, width: u16, height: u16) -> io::Result<()> {
    let size = nix::libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl reads a winsize from a pointer that is valid for the call.
    let result = unsafe { nix::libc::ioctl(terminal, nix::libc::TIOCSWINSZ, &raw const size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor but standard output; only for a process that uses no other afterwards.
pub fn close_all_but_stdout() -> io::Result<()> {
    // SAFETY: no owner of a closed descriptor is used, or dropped, after this: the caller only ever reads standard output and ends.
    let results = unsafe { [libc::syscall(libc::SYS_close_range, 0, 0, 0), libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0)] };
    if results.iter().any(|result| *result < 0) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor but the standard three; only at the start of a process, before anything owns another.
pub fn close_all_but_standard() -> io::Result<()> {
    // SAFETY: nothing in the process owns a descriptor above 2 yet, by what the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Registers a non-blocking descriptor with the runtime.
pub fn register(owned: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open, and the same, for as long as it lives.
    unsafe { AsyncFd::register(owned) }.map_err(|error| error.into_parts().1)
}
