//! What only pid 1 of a guest asks of the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// `_IOW('R', 0x03, int[2])` of `linux/random.h`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// `_IO('R', 7)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
/// Most bytes mixed in at once: as many as the pool takes in.
pub const ENTROPY_MAX_BYTES: usize = 512;

/// Makes what is mounted at `target` the root, of the calling process and of the kernel's threads, which share it.
pub fn move_to_root(target: &Path) -> io::Result<()> {
    let nothing: Option<&str> = None;
    nix::unistd::chdir(target)?;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing)?;
    nix::unistd::chroot(".")?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// Soft and hard limit of open files, for us and all who come after.
pub fn limit_open_files(count: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, count, count)?)
}

/// No limit on processes: cgroups have one.
pub fn unlimit_processes() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NPROC, libc::RLIM_INFINITY, libc::RLIM_INFINITY)?)
}

/// Sets the wall clock to nanoseconds of Unix time.
pub fn set_clock(unix_ns: i64) -> io::Result<()> {
    let time = TimeSpec::new(unix_ns.div_euclid(1_000_000_000), unix_ns.rem_euclid(1_000_000_000));
    Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
}

/// Mixes bytes into the kernel's pool, each credited with eight bits.
pub fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: i32,
        size_bytes: i32,
        bytes: [u8; ENTROPY_MAX_BYTES],
    }
    let random = std::fs::File::options().write(true).open("/dev/random")?;
    for part in bytes.chunks(ENTROPY_MAX_BYTES) {
        let size_bytes = i32::try_from(part.len()).map_err(io::Error::other)?;
        let mut info = PoolInfo { entropy_bits: size_bytes * 8, size_bytes, bytes: [0; ENTROPY_MAX_BYTES] };
        info.bytes[..part.len()].copy_from_slice(part);
        // SAFETY: the kernel reads the two numbers and as many bytes as the second one says, all within the structure.
        if unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    reseed(&random)
}

/// Without it the kernel goes on from what it had for some minutes, which every machine restored from one template has.
fn reseed(random: &std::fs::File) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Nothing was drawn from it yet: it is seeded from the pool when it is.
        error if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
        error => Err(error),
    }
}

/// Whether the other end of a port is closed. Such a port takes nothing and says "try again" for ever.
pub fn is_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO)?;
    Ok(asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// Standard input reads nothing, output and errors go to `console`.
pub fn use_console(console: BorrowedFd<'_>) -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(null.as_fd())?;
    nix::unistd::dup2_stdout(console)?;
    nix::unistd::dup2_stderr(console)?;
    Ok(())
}

/// Writes everything back and turns the machine off. Returns only on failure.
pub fn power_off() -> io::Error {
    // SAFETY: neither call touches memory of ours.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    io::Error::last_os_error()
}
