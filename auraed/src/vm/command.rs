//! `auraed vm`: what it is told, and what it serves.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::sync::oneshot;

use super::events::Events;
use super::machine::Vm;
use crate::cgroup::Hierarchies;
use crate::pod::children::Children;
use crate::pod::exits::Exits;
use crate::pod::journal::Journal;
use crate::pod::supervisor::Supervisor;
use crate::rpc::VmServices;
use crate::start::{self, Options, Served, named};

const USAGE: &str = "--dir DIR [--log-level error|warn|info|debug]";

/// Runs `auraed vm` with the arguments after its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    start::main("vm", USAGE, Options::parse(args, &[]), build)
}

async fn build(options: Options) -> io::Result<Served<VmServices>> {
    let children = Children::start()?;
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    // The file that runs, also when an upgrade has put another in its place. Nothing of the pod can reach it: no copy is needed.
    let binary = PathBuf::from("/proc/self/exe");
    let events = Events::new(Journal::default(), named("exits", Exits::open(&options.dir))?);
    let vm = Vm::start(&options.dir, events, children.clone(), hierarchies.clone(), binary.clone());
    let (finished, shut_down) = oneshot::channel();
    let supervisor = Supervisor::start(vm.clone(), hierarchies, children, binary, finished);
    Ok(Served { services: VmServices::new(vm, supervisor), shut_down })
}
