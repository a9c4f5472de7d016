//! PortForward.

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Outgoing;
use super::streams::{QUEUE, missing};
use crate::api::pod::v0 as api;
use crate::pod::Pod;
use crate::pod::port_forward::{self, Message};
use crate::rpc::status::status;

pub async fn serve(pod: &Pod, mut inbound: Streaming<api::PortForwardInput>) -> Result<Outgoing<api::PortForwardOutput>, Status> {
    use api::port_forward_input::Input;
    let Some(Input::Dial(dial)) = inbound.message().await?.and_then(|message| message.input) else { return Err(missing("dial")) };
    let stream = port_forward::dial(pod, dial.port).await.map_err(status)?;
    let (sender, input) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Ok(Some(message)) = inbound.message().await {
            let message = match message.input {
                Some(Input::Data(bytes)) => Message::Data(bytes),
                Some(Input::HalfClose(_)) => Message::HalfClose,
                Some(Input::Dial(_)) | None => continue,
            };
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    let (output, outputs) = mpsc::channel(QUEUE);
    tokio::spawn(port_forward::relay(stream, input, output));
    Ok(Box::pin(ReceiverStream::new(outputs).map(|output| output.map(outgoing).map_err(status))))
}

fn outgoing(message: Message) -> api::PortForwardOutput {
    use api::port_forward_output::Output;
    let output = match message {
        Message::Connected => Output::Connected(api::Connected {}),
        Message::Data(bytes) => Output::Data(bytes),
        Message::HalfClose => Output::HalfClose(api::HalfClose {}),
    };
    api::PortForwardOutput { output: Some(output) }
}
