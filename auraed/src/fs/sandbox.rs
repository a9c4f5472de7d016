//! What the server of volumes can reach: its two sockets, its log, and the volumes.

use std::io;

use crate::sys::confine::{self, CapabilitySet};
use crate::sys::{fd, namespace, process};

/// A descriptor for each file that the guest's kernel remembers.
const MAX_DESCRIPTORS: u64 = 1 << 18;

/// What it takes to do to files whatever root in a container may do.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Other programs, other namespaces, other processes' memory, mounts, networks, devices' back doors, the kernel itself.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "execve", "execveat", "fork", "vfork",
    "unshare", "setns", "chroot", "pivot_root",
    "mount", "umount2", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "open_by_handle_at", "quotactl", "quotactl_fd", "swapon", "swapoff",
    "socket", "connect", "bind", "listen", "accept", "accept4",
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    "bpf", "perf_event_open", "io_uring_setup", "userfaultfd", "fanotify_init",
    "add_key", "request_key", "keyctl",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "syslog", "acct",
    "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "iopl", "ioperm",
    "shmget", "msgget", "semget", "mq_open",
];

/// Locks this process in. For a process with one thread.
pub fn enter() -> io::Result<()> {
    let step = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    fd::close_all_but_standard().map_err(step("close inherited descriptors"))?;
    process::restore_signals().map_err(step("reset signals"))?;
    process::ignore_sigpipe().map_err(step("ignore SIGPIPE"))?;
    confine::raise_descriptor_limit(MAX_DESCRIPTORS).map_err(step("raise the limit of descriptors"))?;
    let kinds = namespace::Kinds { network: true, ipc: true, uts: true, ..namespace::Kinds::default() };
    namespace::make(kinds).map_err(step("make namespaces"))?;
    namespace::enter_root_with_own_proc().map_err(step("make a root of its own"))?;
    confine::keep_capabilities(CAPABILITIES).map_err(step("give up capabilities"))?;
    // Only now: the kernel forgets it when a process changes its privileges.
    namespace::die_with_parent().map_err(step("follow the parent's end"))?;
    confine::refuse_system_calls(REFUSED).map_err(step("refuse system calls"))
}
