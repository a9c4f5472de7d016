//! Exec.

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Outgoing;
use super::streams::{self, QUEUE, StreamInput};
use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::errors::PodError;
use crate::pod::exec::{ExecProcess, ExecSpec};
use crate::pod::session::{self, Wanted};
use crate::rpc::convert::container_id;
use crate::rpc::status::status;

pub async fn serve(pod: &Pod, mut inbound: Streaming<api::StreamInput>) -> Result<Outgoing<api::StreamOutput>, Status> {
    let Some(StreamInput::Start(start)) = streams::first(&mut inbound).await? else { return Err(streams::missing("start")) };
    let wanted = Wanted { stdin: start.stdin, stdout: start.stdout, stderr: start.stderr };
    let (output, outputs) = mpsc::channel(QUEUE);
    let (process, ours) = begin(pod, start).await.map_err(status)?;
    pod.shared().sessions.spawn(session::exec(process, ours, wanted, streams::inputs(inbound), output));
    Ok(streams::outgoing(outputs))
}

async fn begin(pod: &Pod, start: api::ExecStart) -> Result<(ExecProcess, crate::io::stdio::Streams), PodError> {
    let id = container_id(start.container_id)?;
    let live = pod.ask(&id, Request::Live).await?;
    let size = start.size.unwrap_or_default();
    let spec = ExecSpec {
        command: start.command,
        terminal: start.terminal,
        stdin: start.stdin,
        size: (streams::cells(size.width), streams::cells(size.height)),
    };
    let (process, ours) = ExecProcess::start(pod.shared(), &live, &spec).await?;
    Ok((process, ours))
}
