//! `auraed init`: pid 1 of a microVM, started by the kernel as `/init`.
//!
//! ```text
//!  kernel ──► the system disk is the root ──► boot: mounts, cgroups, limits, settings
//!                ──► port `aurae.control` ──► (a template: saved here, restored as a pod's) ──► greeting ──► HTTP/2: pod contract, guest contract
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
mod initial_root;
pub mod layers;
pub mod limits;
pub mod modprobe;
mod modules;
pub mod network;
pub mod port;
mod scratch;
mod template;
pub mod volumes;

use std::io;
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
    if initial_root::is_here() {
        return named("leave the initial root", Err(initial_root::leave()));
    }
    process::restore_signals()?;
    process::ignore_sigpipe()?;
    process::become_supervisor()?;
    boot::boot()?;
    modprobe::load_listed();
    if !seal::is_protected()? {
        return Err(io::Error::other("the root file system is not EROFS: containers could change auraed"));
    }
    log::install_bounded(tracing::Level::INFO);
    let runtime = start::runtime()?;
    let result = runtime.block_on(serve());
    runtime.shutdown_background();
    result
}

/// Serves until the port's other end is closed.
async fn serve() -> io::Result<()> {
    let children = Children::start()?;
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    let binary = PathBuf::from(PROGRAM);
    let dir = Path::new(RUN_DIR);
    let oci = named("OCI runtime", OciRuntime::open(dir, &binary, None, children.clone()))?;
    let logs = LogRelay::default();
    let pod = Pod::open(dir, children, hierarchies, oci, Logs::Relay(logs.clone()))?;
    let guest = Guest::start(pod.clone(), binary);
    let (mut port, gone) = named("open the control port", Port::open(rpc::CONTROL_PORT).await)?;
    if named("read the kernel's command line", template::is_one())? {
        named("wait to be restored", template::wait_to_be_restored(&mut port).await)?;
    }
    println!("auraed init: serving, version {VERSION}");
    named("serve", rpc::serve_guest((port, gone), pod, guest, logs).await.map_err(io::Error::other))?;
    tracing::info!("the host has closed the control port");
    Ok(())
}
