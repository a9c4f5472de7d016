//! What a request to the guest can be answered with instead of success.

use std::io;

use thiserror::Error;

use super::volumes::VolumesError;
use crate::pod::sandbox::SandboxError;

#[derive(Debug, Error)]
pub enum GuestError {
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("the guest is configured with something else")]
    OtherConfiguration,
    #[error("the guest has no {what}")]
    Missing { what: String },
    #[error("{used} bytes of memory are in use, more than {wanted} would allow")]
    InUse { used: u64, wanted: u64 },
    #[error("the guest is ending")]
    Ending,
    #[error("could not {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("could not {action}: {source}")]
    Network { action: String, source: rtnetlink::Error },
    #[error(transparent)]
    Volumes(#[from] VolumesError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl GuestError {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
