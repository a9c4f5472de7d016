//! The one table from what went wrong to a gRPC status.

use tonic::{Code, Status};

use super::call;
use crate::cgroup::CgroupError;
use crate::fs::client::FsError;
use crate::init::errors::GuestError;
use crate::pod::errors::PodError;
use crate::pod::sandbox::SandboxError;
use crate::pod::stage::StageError;
use crate::vm::errors::VmError;

/// Logs a failure, once, and says it to the caller. In a call that is logged, its line has the reason.
pub fn status(error: PodError) -> Status {
    told(code(&error), &error)
}

/// The same for what only a guest is asked.
pub fn guest_status(error: GuestError) -> Status {
    told(guest_code(&error), &error)
}

/// The same for what the VM answers.
pub fn vm_status(error: VmError) -> Status {
    told(vm_code(&error), &error)
}

fn told(code: Code, error: &(impl std::error::Error + ToString)) -> Status {
    match code {
        _ if call::failed_with(error) => {}
        Code::Internal => tracing::error!(%error, "a call failed"),
        _ => tracing::debug!(%error, "a call was refused"),
    }
    Status::new(code, error.to_string())
}

fn vm_code(error: &VmError) -> Code {
    match error {
        VmError::Invalid { .. } => Code::InvalidArgument,
        VmError::NoSandbox | VmError::Interfaces { .. } => Code::FailedPrecondition,
        VmError::OtherVm | VmError::OtherLog { .. } | VmError::OtherLayer { .. } => Code::AlreadyExists,
        VmError::NotStarted | VmError::Ended { .. } | VmError::ShuttingDown => Code::Unavailable,
        VmError::TooMany { .. } => Code::ResourceExhausted,
        VmError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Code::ResourceExhausted,
        VmError::Volumes(error) => fs_code(error),
        VmError::Pod(error) => self::code(error),
        VmError::Cgroup(error) => cgroup_code(error),
        VmError::Launch { .. } | VmError::Io { .. } | VmError::Netlink { .. } | VmError::LogFile(_) => Code::Internal,
    }
}

fn fs_code(error: &FsError) -> Code {
    match error {
        FsError::Name(_) => Code::InvalidArgument,
        FsError::Taken { .. } => Code::AlreadyExists,
        FsError::Full { .. } => Code::ResourceExhausted,
        FsError::Ended(_) => Code::Unavailable,
        FsError::Share { source, .. } if source.kind() == std::io::ErrorKind::Unsupported => Code::FailedPrecondition,
        FsError::Start(_) | FsError::Share { .. } | FsError::Unshare { .. } => Code::Internal,
    }
}

fn code(error: &PodError) -> Code {
    match error {
        PodError::Invalid { .. } => Code::InvalidArgument,
        PodError::UnknownContainer { .. } => Code::NotFound,
        PodError::AlreadyCreated { .. } | PodError::OtherSandbox => Code::AlreadyExists,
        PodError::WrongPhase { .. } => Code::FailedPrecondition,
        PodError::ShuttingDown => Code::Unavailable,
        PodError::Timeout { .. } => Code::DeadlineExceeded,
        PodError::SlowReader => Code::ResourceExhausted,
        PodError::Dial { .. } => Code::Unavailable,
        PodError::Sandbox(error) => sandbox_code(error),
        PodError::Cgroup(error) => cgroup_code(error),
        PodError::Pump(_) => Code::FailedPrecondition,
        PodError::Rootfs(error) if error.is_invalid() => Code::InvalidArgument,
        PodError::Rootfs(_) => Code::Internal,
        PodError::Stage(StageError::Invalid { .. }) => Code::InvalidArgument,
        PodError::Stage(StageError::Unmappable { .. }) => Code::FailedPrecondition,
        PodError::Stage(StageError::Io { .. }) => Code::Internal,
        PodError::Unkillable { .. } | PodError::Io { .. } | PodError::Oci(_) | PodError::LogFile(_) => Code::Internal,
    }
}

fn guest_code(error: &GuestError) -> Code {
    match error {
        GuestError::Invalid { .. } => Code::InvalidArgument,
        GuestError::OtherConfiguration => Code::AlreadyExists,
        GuestError::Missing { .. } | GuestError::InUse { .. } => Code::FailedPrecondition,
        GuestError::Ending => Code::Unavailable,
        GuestError::Sandbox(error) => sandbox_code(error),
        GuestError::Io { .. } | GuestError::Network { .. } | GuestError::Volumes(_) => Code::Internal,
    }
}

fn sandbox_code(error: &SandboxError) -> Code {
    match error {
        SandboxError::Cgroup(error) => cgroup_code(error),
        SandboxError::Sysctl(_) | SandboxError::Invalid { .. } => Code::InvalidArgument,
        SandboxError::Io { .. } | SandboxError::Namespaces { .. } => Code::Internal,
    }
}

fn cgroup_code(error: &CgroupError) -> Code {
    match error {
        CgroupError::BadPath { .. } | CgroupError::BadSlice { .. } => Code::InvalidArgument,
        CgroupError::Io { .. } | CgroupError::NoHierarchy | CgroupError::Systemd { .. } => Code::Internal,
    }
}
