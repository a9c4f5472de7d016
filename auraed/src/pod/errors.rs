//! What a request to the pod can be answered with instead of success.

use thiserror::Error;

use super::oci::OciError;
use super::sandbox::SandboxError;
use super::stage::StageError;
use crate::cgroup::CgroupError;
use crate::io::log_file::LogFileError;
use crate::io::pump::PumpError;
use crate::rootfs::RootfsError;

#[derive(Debug, Error)]
pub enum PodError {
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("container {id} is not known here")]
    UnknownContainer { id: String },
    #[error("container {id} was created before")]
    AlreadyCreated { id: String },
    #[error("container {id} is {is}, not {wanted}")]
    WrongPhase { id: String, is: &'static str, wanted: &'static str },
    #[error("the sandbox exists with another configuration")]
    OtherSandbox,
    #[error("the pod is shutting down")]
    ShuttingDown,
    #[error("the command did not end within {timeout_ms} ms and was killed")]
    Timeout { timeout_ms: u64 },
    #[error("the client fell too far behind the container's output and was let go")]
    SlowReader,
    #[error("nothing answers on port {port} of the pod: {source}")]
    Dial { port: u16, source: std::io::Error },
    #[error("container {id} could not be killed")]
    Unkillable { id: String },
    #[error("could not {action}: {source}")]
    Io { action: &'static str, source: std::io::Error },
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Oci(#[from] OciError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    LogFile(#[from] LogFileError),
    #[error(transparent)]
    Pump(#[from] PumpError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl PodError {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
