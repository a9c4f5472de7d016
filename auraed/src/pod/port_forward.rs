//! One connection to a port of the pod's own loopback.

use std::io;

use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::Pod;
use super::errors::PodError;
use super::network;

const READ_BYTES: usize = 16 * 1024;

/// In either direction.
#[derive(Debug)]
pub enum Message {
    /// To the client only.
    Connected,
    Data(Bytes),
    HalfClose,
}

pub type Messages = mpsc::Sender<Result<Message, PodError>>;

/// Connects; refused when nothing listens.
pub async fn dial(pod: &Pod, port: u32) -> Result<TcpStream, PodError> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| PodError::Invalid { field: "dial.port", problem: "must be 1 to 65535".to_owned() })?;
    let connect = async {
        let stream = network::dial(pod.place().network, port).await?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    };
    connect.await.map_err(|source| PodError::Dial { port, source })
}

/// Copies both ways until both have ended, or either side is lost.
pub async fn relay(stream: TcpStream, mut input: mpsc::Receiver<Message>, output: Messages) {
    let (reader, writer) = stream.into_split();
    if output.send(Ok(Message::Connected)).await.is_err() {
        return;
    }
    let copying = async { tokio::try_join!(to_pod(writer, &mut input), to_client(reader, &output)) };
    tokio::select! {
        result = copying => if let Err(error) = result {
            let _ = output.send(Err(PodError::io("forward the connection")(error))).await;
        },
        () = output.closed() => {}
    }
}

async fn to_pod(mut writer: OwnedWriteHalf, input: &mut mpsc::Receiver<Message>) -> io::Result<()> {
    while let Some(message) = input.recv().await {
        match message {
            Message::Data(bytes) => writer.write_all(&bytes).await?,
            Message::HalfClose => break,
            Message::Connected => {}
        }
    }
    writer.shutdown().await
}

async fn to_client(mut reader: OwnedReadHalf, output: &Messages) -> io::Result<()> {
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        let count = reader.read(&mut buffer).await?;
        let message = if count == 0 { Message::HalfClose } else { Message::Data(Bytes::copy_from_slice(&buffer[..count])) };
        if output.send(Ok(message)).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}
