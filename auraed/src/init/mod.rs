//! `auraed init`: pid 1 of a microVM, started by the kernel as `/init`.
//!
//! ```text
//!  kernel ──► another root, a sealed copy of ourselves ──► boot: mounts, cgroups, limits, settings
//!                ──► port `aurae.control` ──► greeting ──► HTTP/2: pod contract, guest contract
//!                                                            └► Guest task: Configure, MountLayers
//!  the port's other end closes ──► everything is written back, power off
//! ```
//! Containers are the pod room's, with the same code as on the host. What is missing to serve is a panic: the kernel ends
//! the machine when its pid 1 ends, and whoever started it finds our last words on the console.

mod boot;
pub mod configure;
pub mod errors;
pub mod facts;
pub mod guest;
pub mod layers;
pub mod limits;
pub mod modprobe;
mod modules;
pub mod network;
pub mod port;
mod scratch;
pub mod volumes;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cgroup::Hierarchies;
use crate::io::log_relay::LogRelay;
use crate::io::log_sink::Logs;
use crate::pod::Pod;
use crate::pod::children::Children;
use crate::pod::oci::OciRuntime;
use crate::sys::{process, seal};
use crate::{VERSION, log, rpc, start, sys};
use guest::Guest;
use port::Port;

/// What the kernel starts.
pub const PROGRAM: &str = "/init";
/// Everything of the pod but what containers write.
const RUN_DIR: &str = "/run/aurae";

/// An action of ours that failed, for the console.
fn named<T>(action: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{action}: {error}")))
}

/// Runs `auraed init`. Returns only when it could not: the kernel panics then.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("auraed init: is only for pid 1 of a guest");
        return ExitCode::from(2);
    }
    let error = match run() {
        Ok(()) => named("power off", Err::<(), _>(sys::guest::power_off())),
        Err(error) => Err(error),
    };
    if let Err(error) = error {
        eprintln!("auraed init: {error}");
    }
    ExitCode::FAILURE
}

fn run() -> io::Result<()> {
    if !is_sealed() {
        named("leave the initial root", boot::leave_initial_root())?;
        return named("make a sealed copy of auraed", Err(seal::exec_sealed()));
    }
    // Its memory is the guest's: what runs is the sealed copy.
    let _ = fs::remove_file(PROGRAM);
    process::restore_signals()?;
    process::ignore_sigpipe()?;
    process::become_supervisor()?;
    boot::boot()?;
    log::install_bounded(tracing::Level::INFO);
    let runtime = start::runtime()?;
    let result = runtime.block_on(serve());
    runtime.shutdown_background();
    result
}

/// Before the first step /proc is not there, and so no answer.
fn is_sealed() -> bool {
    seal::is_sealed().unwrap_or(false)
}

/// Serves until the port's other end is closed.
async fn serve() -> io::Result<()> {
    let children = Children::start()?;
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    let (own, binary) = own_binary()?;
    let dir = Path::new(RUN_DIR);
    let oci = named("OCI runtime", OciRuntime::open(dir, &binary, None, children.clone()))?;
    let logs = LogRelay::default();
    let pod = Pod::open(dir, children, hierarchies, oci, Logs::Relay(logs.clone()))?;
    let guest = Guest::start(pod.clone(), binary);
    let port = named("open the control port", Port::open(rpc::CONTROL_PORT).await)?;
    println!("auraed init: serving, version {VERSION}");
    named("serve", rpc::serve_guest(port, pod, guest, logs).await.map_err(io::Error::other))?;
    tracing::info!("the host has closed the control port");
    drop(own);
    Ok(())
}

/// The sealed copy that we run, by a descriptor which its processes are started from.
fn own_binary() -> io::Result<(fs::File, PathBuf)> {
    let own = named("open our binary", fs::File::open("/proc/self/exe"))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()));
    Ok((own, path))
}
