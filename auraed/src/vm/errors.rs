//! What a request to the VM can be answered with instead of success.

use std::io;

use thiserror::Error;

use crate::cgroup::CgroupError;
use crate::fs::client::FsError;
use crate::io::log_file::LogFileError;
use crate::pod::errors::PodError;

#[derive(Debug, Error)]
pub enum VmError {
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("there is no sandbox: call CreateSandbox with namespaces.network first")]
    NoSandbox,
    #[error("a VM was started with another configuration")]
    OtherVm,
    #[error("the VM was not started")]
    NotStarted,
    #[error("{reason}")]
    Ended { reason: String },
    #[error("the pod is shutting down")]
    ShuttingDown,
    #[error("could not {step}: {error}")]
    Launch { step: String, error: String },
    #[error("the sandbox's network namespace has {found}: it must have exactly one interface besides lo and the VM's tap")]
    Interfaces { found: String },
    #[error("the log of container {id} is open at another path: close it first")]
    OtherLog { id: String },
    #[error("the layer {name} is another file already")]
    OtherLayer { name: String },
    #[error("too many {what}: at most {most}")]
    TooMany { what: &'static str, most: usize },
    #[error("could not {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("could not {action}: {source}")]
    Netlink { action: &'static str, source: rtnetlink::Error },
    /// Of what both kinds of pod check.
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    LogFile(#[from] LogFileError),
    #[error(transparent)]
    Volumes(#[from] FsError),
}

impl VmError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action: action.into(), source }
    }

    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }
}
