//! `auraed oci`: one OCI runtime operation over libcontainer, then the end.
//!
//! The command line is the one every OCI runtime has, so runc or crun can stand in by configuration. A short process of
//! one thread: libcontainer forks without exec. What it starts is left to the caller, who is its parent or its subreaper.
//!
//! ```text
//!  args → sealed copy (once per pod) → operation → exit code
//!                                        └ failure: one line on stderr, one JSON line in --log
//! ```

use std::ffi::OsString;
use std::process::ExitCode;

mod args;
mod create;
mod devices;
mod exec;
mod features;
mod lifecycle;
mod log;
mod unit_limits;

use args::{Command, Invocation};

/// Why an operation failed. The text is for the operator; the exit code is 1 whatever the kind.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The file that says what to do cannot be used.
    #[error("{path}: {reason}")]
    Input {
        /// The file or field.
        path: String,
        /// What is wrong, and the remedy where there is one.
        reason: String,
    },
    /// No container of that id below the state directory.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// The binary could not be protected from the container.
    #[error("failed to make a sealed copy of auraed: {0}")]
    Seal(#[source] std::io::Error),
    /// libcontainer refused or failed.
    #[error("{operation}: {}", chain(.source.as_ref()))]
    Runtime {
        /// What was attempted.
        operation: &'static str,
        /// libcontainer's own account.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel refused.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl OciError {
    fn runtime(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Runtime { operation, source: source.into() }
    }

    fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// The error and its causes in one line; a cause already quoted by its effect is not repeated.
fn chain(error: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

/// Runs `auraed oci` with the arguments after its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // Rust ignores SIGPIPE: `yes | head` would never end in a container.
    if let Err(error) = crate::sys::process::restore_signals() {
        eprintln!("auraed oci: {error}");
    }
    let invocation = match args::parse(args) {
        Ok(invocation) => invocation,
        Err(error) => {
            eprintln!("auraed oci: {error}");
            return ExitCode::from(2);
        }
    };
    let log = log::install(invocation.log.as_deref(), invocation.debug);
    let result = log.and_then(|()| run(&invocation));
    match result {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("auraed oci: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(invocation: &Invocation) -> Result<ExitCode, OciError> {
    let runs_code_in_container = matches!(invocation.command, Command::Create { .. } | Command::Exec { .. });
    if runs_code_in_container && !crate::sys::seal::is_protected().map_err(OciError::Seal)? {
        return Err(OciError::Seal(crate::sys::seal::exec_sealed()));
    }
    match &invocation.command {
        Command::Create { id, bundle, io } => create::create(invocation, id, bundle, io).map(|()| ExitCode::SUCCESS),
        Command::Exec { id, process, detach, io } => exec::exec(invocation, id, process, *detach, io),
        Command::Start { id } => lifecycle::start(invocation, id).map(|()| ExitCode::SUCCESS),
        Command::State { id } => lifecycle::state(invocation, id).map(|()| ExitCode::SUCCESS),
        Command::Kill { id, signal, all } => lifecycle::kill(invocation, id, signal, *all).map(|()| ExitCode::SUCCESS),
        Command::Delete { id, force } => lifecycle::delete(invocation, id, *force).map(|()| ExitCode::SUCCESS),
        Command::Update { id, resources } => lifecycle::update(invocation, id, resources).map(|()| ExitCode::SUCCESS),
        Command::Features => features::print().map(|()| ExitCode::SUCCESS),
        Command::Version => {
            println!("auraed version {}\nspec: {}", crate::VERSION, features::OCI_VERSION_MAX);
            Ok(ExitCode::SUCCESS)
        }
    }
}
