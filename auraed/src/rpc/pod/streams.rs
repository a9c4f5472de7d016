//! Conversions of the live streams that Exec and Attach share.

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Outgoing;
use crate::api::pod::v0 as api;
use crate::io::cri_log::OutputStream;
use crate::pod::errors::PodError;
use crate::pod::session::{Input, Output};
use crate::rpc::status::status;

/// Messages taken from a client, or kept for it, before it must wait.
pub const QUEUE: usize = 4;

pub type StreamInput = api::stream_input::Input;

/// The client's first message.
pub async fn first(inbound: &mut Streaming<api::StreamInput>) -> Result<Option<StreamInput>, Status> {
    Ok(inbound.message().await?.and_then(|message| message.input))
}

pub fn missing(field: &'static str) -> Status {
    status(PodError::Invalid { field, problem: "must come in the first message".to_owned() })
}

/// The client's later messages; the receiver ends with the client.
pub fn inputs(mut inbound: Streaming<api::StreamInput>) -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // A client that broke off has ended like one that said goodbye: its answers show the difference.
        while let Ok(Some(message)) = inbound.message().await {
            let input = match message.input {
                Some(StreamInput::Stdin(bytes)) => Input::Stdin(bytes),
                Some(StreamInput::StdinClose(_)) => Input::StdinClose,
                Some(StreamInput::Resize(size)) => Input::Resize { width: cells(size.width), height: cells(size.height) },
                Some(StreamInput::Start(_) | StreamInput::Attach(_)) | None => continue,
            };
            if sender.send(input).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// A terminal's columns or rows.
pub fn cells(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

pub fn outgoing(outputs: mpsc::Receiver<Result<Output, PodError>>) -> Outgoing<api::StreamOutput> {
    Box::pin(ReceiverStream::new(outputs).map(|output| output.map(message).map_err(status)))
}

fn message(output: Output) -> api::StreamOutput {
    use api::stream_output::Output as Wire;
    let output = match output {
        Output::Started => Wire::Started(api::Started {}),
        Output::Bytes(OutputStream::Stdout, bytes) => Wire::Stdout(bytes),
        Output::Bytes(OutputStream::Stderr, bytes) => Wire::Stderr(bytes),
        Output::ExitCode(code) => Wire::ExitCode(code),
    };
    api::StreamOutput { output: Some(output) }
}
