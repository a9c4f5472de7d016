//! `auraed pod`: what it is told, and what it serves.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::sync::oneshot;

use super::Pod;
use super::children::Children;
use super::oci::OciRuntime;
use super::supervisor::Supervisor;
use crate::cgroup::Hierarchies;
use crate::io::log_sink::Logs;
use crate::rpc::PodServices;
use crate::start::{self, Options, Served, named};
use crate::sys::seal;

const OCI_RUNTIME: &str = "--oci-runtime";
const USAGE: &str = "--dir DIR [--oci-runtime PATH] [--log-level error|warn|info|debug]";

/// Runs `auraed pod` with the arguments after its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    start::main("pod", USAGE, Options::parse(args, &[OCI_RUNTIME]), build)
}

async fn build(options: Options) -> io::Result<Served<PodServices>> {
    let children = Children::start()?;
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    // Once for all: `auraed oci` would otherwise copy itself in every call.
    let protected = named("protect our binary", seal::sealed_copy())?;
    let binary = PathBuf::from(format!("/proc/self/fd/{}", protected.as_raw_fd()));
    // For the life of the process: every child is started from it.
    std::mem::forget(protected);
    let runtime = options.own(OCI_RUNTIME).map(Path::new);
    let oci = named("OCI runtime", OciRuntime::open(&options.dir, &binary, runtime, children.clone()))?;
    let pod = Pod::open(&options.dir, children.clone(), hierarchies.clone(), oci, Logs::Files)?;
    let (finished, shut_down) = oneshot::channel();
    let supervisor = Supervisor::start(pod.clone(), hierarchies, children, binary, finished);
    Ok(Served { services: PodServices::new(pod, supervisor), shut_down })
}
