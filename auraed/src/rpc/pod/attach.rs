//! Attach.

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Outgoing;
use super::streams::{self, QUEUE, StreamInput};
use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::container::Request;
use crate::pod::session::{self, Wanted};
use crate::rpc::convert::container_id;
use crate::rpc::status::status;

pub async fn serve(pod: &Pod, mut inbound: Streaming<api::StreamInput>) -> Result<Outgoing<api::StreamOutput>, Status> {
    let Some(StreamInput::Attach(start)) = streams::first(&mut inbound).await? else { return Err(streams::missing("attach")) };
    let wanted = Wanted { stdin: start.stdin, stdout: start.stdout, stderr: start.stderr };
    let id = container_id(start.container_id).map_err(status)?;
    let live = pod.ask(&id, Request::Live).await.map_err(status)?;
    let (output, outputs) = mpsc::channel(QUEUE);
    pod.shared().sessions.spawn(session::attach(live, wanted, streams::inputs(inbound), output));
    Ok(streams::outgoing(outputs))
}
