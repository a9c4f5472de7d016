//! Starting QEMU: its descriptors, and the conversation with the process that becomes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::errors::VmError;
use super::vmm::{Plan, Report};
use crate::helper;
use crate::pod::children::{Child, Children};
use crate::pod::network;
use crate::sys::{fd, process, tap};

/// The VM's interface in the sandbox's network namespace.
pub const TAP: &str = "tap0";
/// How long it may take until QEMU is executed.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);
/// Two short lines.
const MAX_REPORTS_BYTES: u64 = 64 * 1024;

/// QEMU as it runs, and our ends of what connects it.
pub struct Launched {
    pub child: Child,
    pub control: UnixStream,
    pub console: UnixStream,
    pub volumes: StdUnixStream,
    /// QEMU's own messages.
    pub messages: pipe::Receiver,
}

/// Returns when QEMU has been executed. After a failure no process is left. `saved_state`: what its machine goes on from.
pub async fn launch(plan: &Plan, saved_state: Option<OwnedFd>, children: &Children, binary: &Path) -> Result<Launched, VmError> {
    let (control, control_theirs) = pair()?;
    let (console, console_theirs) = pair()?;
    let (volumes, volumes_theirs) = pair()?;
    let namespace = PathBuf::from(&plan.network);
    let tap = network::inside(Some(namespace), || tap::open(TAP)).await.map_err(VmError::io("make the tap"))?;
    let (ours, theirs) = pair()?;
    let (messages, messages_theirs) = fd::pipe().map_err(VmError::io("make a pipe"))?;
    fd::set_nonblocking(messages.as_fd()).map_err(VmError::io("prepare a pipe"))?;
    let messages = pipe::Receiver::from_owned_fd(messages).map_err(VmError::io("prepare a pipe"))?;
    let mut command = Command::new(binary);
    command.arg("vmm").stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::from(messages_theirs));
    let child = children.spawn(&mut command).map_err(VmError::io("start the VMM's process"))?;
    // It holds the child's ends: an early end of the child must be seen as the end of the stream.
    drop(command);
    let mut descriptors = vec![control_theirs.as_fd(), console_theirs.as_fd(), volumes_theirs.as_fd(), tap.as_fd()];
    descriptors.extend(saved_state.as_ref().map(AsFd::as_fd));
    let conversation = converse(ours, plan, &descriptors);
    let result = tokio::time::timeout(LAUNCH_LIMIT, conversation).await.unwrap_or_else(|_| Err(failed("execute the VMM", "timed out")));
    if let Err(error) = result {
        process::send_signal(child.pid, nix::libc::SIGKILL);
        let _ = child.exited.await;
        return Err(error);
    }
    Ok(Launched { child, control: registered(control)?, console: registered(console)?, volumes, messages })
}

fn pair() -> Result<(StdUnixStream, StdUnixStream), VmError> {
    StdUnixStream::pair().map_err(VmError::io("make a socket pair"))
}

fn registered(socket: StdUnixStream) -> Result<UnixStream, VmError> {
    socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).map_err(VmError::io("prepare a socket"))
}

fn failed(step: &str, error: &str) -> VmError {
    VmError::Launch { step: step.to_owned(), error: error.to_owned() }
}

async fn converse(socket: StdUnixStream, plan: &Plan, descriptors: &[BorrowedFd<'_>]) -> Result<(), VmError> {
    // Into an empty socket: this does not wait.
    fd::send_fds(socket.as_fd(), 0, descriptors).map_err(VmError::io("hand over the descriptors"))?;
    let mut control = registered(socket)?;
    let message = helper::message(plan).map_err(VmError::io("write the plan"))?;
    control.write_all(&message).await.map_err(VmError::io("instruct the VMM's process"))?;
    let mut reports = String::new();
    control.take(MAX_REPORTS_BYTES).read_to_string(&mut reports).await.map_err(VmError::io("hear from the VMM's process"))?;
    judge(&reports)
}

/// The stream ends when the program is executed, and when the process ends: it says which is to come.
fn judge(reports: &str) -> Result<(), VmError> {
    let reports: Vec<Report> = reports.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    match reports.last() {
        Some(Report::Executing) => Ok(()),
        Some(Report::Failed { step, error }) => Err(failed(step, error)),
        None => Err(failed("execute the VMM", "its process ended early")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_that_ends_after_the_announcement_is_success() {
        let line = |report: &Report| format!("{}\n", serde_json::to_string(report).unwrap());
        let failure = Report::Failed { step: "execute".to_owned(), error: "no such file".to_owned() };
        assert!(judge(&line(&Report::Executing)).is_ok());
        assert!(judge("").unwrap_err().to_string().contains("ended early"));
        let text = judge(&(line(&Report::Executing) + &line(&failure))).unwrap_err().to_string();
        assert_eq!(text, "could not execute: no such file");
    }
}
