//! `auraed reaper`: makes a pod's namespaces when a user or a pid namespace is among them, and stays as the pid namespace's pid 1.
//!
//! ```text
//! auraed pod ──exec──► reaper: namespaces, loopback, hostname, sysctls ──► pinned by auraed ──► ends
//!                        └──fork──► pid 1 of the pod: empty root, no capabilities, reaps until auraed is gone
//! ```
//! An own process, because a thread can have neither of the two for itself; all others `namespaces` makes. Hidden: only auraed
//! starts it. Standard input is the control socket; standard output is, the wrong way round, a pipe to read from whose
//! other end closes with auraed.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::namespaces;
use crate::helper::{Control, Failure, Step};
use crate::sys::namespace::{self, Fork};

/// What to make.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub user: bool,
    pub network: bool,
    pub ipc: bool,
    pub uts: bool,
    pub pid: bool,
    pub hostname: String,
    pub sysctls: Vec<(PathBuf, String)>,
    /// A directory to hang the pid 1's empty root on.
    pub anchor: PathBuf,
}

/// One line from the reaper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The user namespace wants its mappings; answered with `GO`.
    WantsMappings,
    /// Pid 1 has been made, with this number on the host.
    Forked {
        pid: i32,
    },
    /// Everything is set up; answered with `GO` when it is pinned.
    Ready,
    Failed {
        step: String,
        error: String,
    },
}

/// Runs `auraed reaper`, which takes no arguments.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    let Ok(mut control) = Control::from_stdin() else {
        return ExitCode::from(2);
    };
    match run(&mut control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(step, error)) => {
            control.report(&Report::Failed { step: step.to_owned(), error: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn run(control: &mut Control) -> Result<(), Failure> {
    namespace::die_with_parent().step("set the parent-death signal")?;
    let plan: Plan = control.plan().step("read the plan")?;
    if plan.user {
        namespace::make(namespace::Kinds { user: true, ..Default::default() }).step("make the user namespace")?;
        control.report(&Report::WantsMappings);
        control.wait().step("wait for the id mappings")?;
        namespace::become_namespace_root().step("become root of the user namespace")?;
        // Forgotten by the kernel with the change of user.
        namespace::die_with_parent().step("set the parent-death signal")?;
    }
    namespaces::make(&plan)?;
    if plan.pid {
        match namespace::fork_single_threaded().step("fork pid 1")? {
            Fork::Parent { child } => control.report(&Report::Forked { pid: child }),
            Fork::Child => return be_pid_one(&plan, control),
        }
    } else {
        control.report(&Report::Ready);
    }
    // Whoever pins the namespaces does it through this process.
    control.wait().step("wait until the namespaces are pinned")
}

/// A container that shares the pid namespace may be allowed to look into its processes: pid 1 has nothing to look at.
fn be_pid_one(plan: &Plan, control: &mut Control) -> Result<(), Failure> {
    namespace::reap_automatically().step("ignore the ends of children")?;
    namespace::enter_empty_root(&plan.anchor).step("enter an empty root")?;
    namespace::drop_capabilities().step("drop capabilities")?;
    namespace::hide_from_tracers().step("hide from tracers")?;
    control.report(&Report::Ready);
    crate::sys::fd::close_all_but_stdout().step("close descriptors")?;
    let mut life = Life(io::stdout());
    // The first byte: our maker has ended, so the parent is auraed now.
    if !life.wait().step("wait for the new parent")? {
        return Ok(());
    }
    namespace::die_with_parent().step("set the parent-death signal")?;
    while life.wait().step("wait for the end")? {}
    Ok(())
}

/// The pipe that says whether auraed lives.
struct Life(io::Stdout);

impl Life {
    /// `false` when the other end is closed.
    fn wait(&mut self) -> io::Result<bool> {
        let mut byte = [0u8];
        match crate::sys::fd::read(self.0.as_fd(), &mut byte) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}
