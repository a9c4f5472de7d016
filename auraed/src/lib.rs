//! auraed: one static binary with a few ways to start, one room each.
//!
//! ```text
//!  auraed pod …    supervises one flat pod: namespaces, reaping, stdio, logs, exec     (async, long-lived)
//!    └ auraed oci …  one OCI runtime operation over libcontainer                        (single-threaded, short)
//!  auraed init     pid 1 of a microVM: the same pod, in a guest                       (async, for the guest's life)
//!    ├ auraed oci …
//!    └ modprobe …    the guest kernel's request for a module: auraed by another name    (short)
//!  auraed fs       serves the volumes of one microVM, sandboxed                        (blocking, long-lived)
//!  auraed vm …     supervises one microVM: QEMU, relay to the guest, logs, exits         (async, long-lived)
//!  auraed dial     opens connections to flat pods' ports for the daemon               (async, as long as the daemon)
//!  auraed host …   one-shot helpers of the daemon: layer mounts, clean-up after a crash (short)
//! ```
//!
//! | module   | what lives there |
//! |----------|------------------|
//! | `oci`    | the OCI runtime command line |
//! | `pod`    | the per-pod supervisor |
//! | `init`   | pid 1 of a guest: boot, the control port, what makes the guest the pod's; modules for its kernel |
//! | `vm`     | the supervisor of one microVM, on the host |
//! | `dial`   | connections to ports of flat pods, handed to the daemon |
//! | `start`  | what the supervisors' start-ups share |
//! | `helper` | instructing a process that is a helper of ours |
//! | `cgroup` | hierarchies, the pod's leaf, counters |
//! | `io`     | streams, terminals, attach, CRI log writer |
//! | `rpc`    | one file per RPC: conversion and status mapping only |
//! | `rootfs` | a container's root filesystem: overlay, users, image volumes, mount targets |
//! | `fs`     | volumes of a microVM on the host: the server, and what starts it |
//! | `init`   | the guest of a microVM: volumes |
//! | `host`   | `auraed host`: answers as JSON on stdout |
//! | `tree`   | copying and removing directory trees by descriptor |
//! | `idmap`  | a pod's user namespace: whose ids its ids are |
//! | `sys`    | every libc call and every unsafe block of the crate |
//!
//! Unsafe code is denied by the manifest and allowed in `sys` alone, where each block argues its safety.
//! libcontainer forks without exec, so nothing that calls it may run in a process with more than one thread:
//! only `oci` does, and every call of it is a process of its own.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

pub mod cgroup;
pub mod dial;
pub mod fs;
mod helper;
pub mod host;
pub mod idmap;
pub mod init;
pub mod io;
mod log;
pub mod oci;
pub mod pod;
pub mod rootfs;
pub mod rpc;
mod start;
pub mod sys;
pub mod tree;
pub mod vm;

/// Generated types and services of the contracts under `api/aurae`.
pub mod api {
    /// `aurae.pod.v0`: what a supervisor of containers does for one pod.
    pub mod pod {
        #[allow(clippy::all, clippy::too_many_lines, missing_docs)]
        pub mod v0 {
            tonic::include_proto!("aurae.pod.v0");
        }
    }
    /// `aurae.guest.v0`: what only the auraed of a microVM is asked.
    pub mod guest {
        #[allow(clippy::all, clippy::too_many_lines, missing_docs)]
        pub mod v0 {
            tonic::include_proto!("aurae.guest.v0");
        }
    }
    /// `aurae.supervisor.v0`: what the daemon asks of a pod's host-side auraed.
    pub mod supervisor {
        #[allow(clippy::all, clippy::too_many_lines, missing_docs)]
        pub mod v0 {
            tonic::include_proto!("aurae.supervisor.v0");
        }
    }
}

/// Version of this binary, as `--version` and Hello report it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the way of starting named by the first argument, or by `program`, the name we were started by: a guest's kernel starts its pid 1 as
/// `/init` and `modprobe` by name, with arguments of its own.
pub fn run(program: &OsStr, mut args: Vec<OsString>) -> ExitCode {
    if program == init::PROGRAM && std::process::id() == 1 {
        return init::main();
    }
    if Path::new(program).file_name() == Some(OsStr::new(init::modprobe::PROGRAM)) {
        return init::modprobe::main(&args);
    }
    let way = if args.is_empty() { OsString::new() } else { args.remove(0) };
    match way.to_str() {
        Some("oci") => oci::main(args),
        Some("pod") => pod::main(args),
        Some("fs") => fs::main(args),
        Some("vm") => vm::main(args),
        Some("dial") => dial::main(args),
        Some("host") => host::main(args),
        Some("init") => init::main(),
        Some("reaper") => pod::reaper::main(args),
        Some("vmm") => vm::vmm::main(args),
        Some("--version") => {
            println!("auraed {VERSION}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("auraed: name a way to start: oci, pod, vm, init, fs, dial or host");
            ExitCode::from(2)
        }
    }
}
