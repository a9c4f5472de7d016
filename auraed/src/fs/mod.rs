//! Volumes of a microVM, on the host.
//!
//! ```text
//!  auraed vm ── client ──┐ orders (standard input)
//!     │  mounts          ▼
//!     └─────────────▶ auraed fs ◀── FUSE messages (standard output) ──▶ QEMU, port aurae.volumes ──▶ auraed init
//! ```
//!
//! `auraed fs` is a process of its own because it answers whatever a guest says with the powers of root: its mount namespace holds the
//! pod's volumes and nothing else, and it can mount nothing itself. `auraed vm` mounts: a thread of it that enters that namespace
//! attaches a copy of the source's mounts in the directory of a slot. So no path of the host is resolved in the sandbox.
//!
//! A volume NAME, file or directory, is the node NAME of the guest's file system; bound from `/run/aurae/volumes/NAME` it is what the
//! host shared. Who may do what is decided by the guest's kernel, by owner and mode; the server makes new files in the name of the
//! user that the guest's kernel gives.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use control::{Order, Report};
use volumes::Volumes;

mod attach;
pub mod client;
mod control;
pub mod messages;
mod sandbox;
mod serve;
mod volumes;

/// The library's frames are small, and no path is walked recursively.
const STACK_BYTES: usize = 256 * 1024;

/// Runs `auraed fs`, which has no arguments: standard input is the control socket, standard output the port's socket, standard error
/// the log. It ends with the first of the two.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if !args.is_empty() {
        eprintln!("auraed fs: it takes no arguments; it is started by auraed vm");
        return ExitCode::from(2);
    }
    crate::log::install(tracing::Level::INFO);
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "auraed fs failed");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    sandbox::enter()?;
    let control = UnixStream::from(duplicate(io::stdin())?);
    let port = UnixStream::from(duplicate(io::stdout())?);
    let volumes = Arc::new(Volumes::default());
    let (served, mut announce) = (volumes.clone(), control.try_clone()?);
    thread::Builder::new().name("volumes".into()).stack_size(STACK_BYTES).spawn(move || {
        let reason = serve::serve(port, served).to_string();
        tracing::info!(reason, "volumes are served no more");
        // Whoever would want to know may be gone.
        let _ = announce.write_all(&control::line(&Report::Ended { reason }));
        std::process::exit(0);
    })?;
    obey(&control, &volumes)
}

fn duplicate(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Carries out orders until nobody gives any more.
fn obey(control: &UnixStream, volumes: &Volumes) -> io::Result<()> {
    let mut answers = control;
    answers.write_all(&control::line(&Report::Ready))?;
    for line in BufReader::new(control).lines() {
        let report = match carry_out(serde_json::from_str(&line?)?, volumes) {
            Ok(()) => Report::Done,
            Err(error) => Report::Failed { reason: error.to_string() },
        };
        answers.write_all(&control::line(&report))?;
    }
    Ok(())
}

fn carry_out(order: Order, volumes: &Volumes) -> io::Result<()> {
    match order {
        Order::Add { slot, name } => volumes.add(slot, &name, &control::directory(slot)),
        Order::Remove { slots } => {
            slots.into_iter().for_each(|slot| volumes.remove(slot));
            Ok(())
        }
    }
}
