//! Logs: records that are not acknowledged yet, then live ones, until a newer stream takes over.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::api::guest::v0 as api;
use crate::api::guest::v0::log_records::Content;
use crate::io::log_relay::{Feed, LogRelay, Sent};
use crate::rpc::pod::Outgoing;

pub fn serve(logs: &LogRelay, inbound: Streaming<api::LogAck>) -> Outgoing<api::LogRecords> {
    // One in hand: what is not yet wanted stays in the queue.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(relay(logs.feed(), inbound, sender));
    Box::pin(ReceiverStream::new(receiver))
}

async fn relay(mut feed: Feed, mut inbound: Streaming<api::LogAck>, outbound: mpsc::Sender<Result<api::LogRecords, Status>>) {
    loop {
        tokio::select! {
            acknowledged = inbound.message() => match acknowledged {
                Ok(Some(ack)) if ack.through == 0 || feed.acknowledge(ack.through, &ack.error) => {}
                Ok(Some(ack)) => {
                    let problem = format!("through: {} was not sent on this stream, or another has taken over", ack.through);
                    let _ = outbound.send(Err(Status::invalid_argument(problem))).await;
                    return;
                }
                Ok(None) | Err(_) => return,
            },
            sent = send_next(&mut feed, &outbound) => if !sent { return },
        }
    }
}

/// False when the stream is over. Cancel safe: what is taken from the queue has its place in the channel.
async fn send_next(feed: &mut Feed, outbound: &mpsc::Sender<Result<api::LogRecords, Status>>) -> bool {
    let Ok(place) = outbound.reserve().await else { return false };
    let Some(sent) = feed.next().await else { return false };
    place.send(Ok(message(sent)));
    true
}

fn message(sent: Sent) -> api::LogRecords {
    let content = sent.records.map_or(Content::Reopen(api::Reopen {}), Content::Records);
    api::LogRecords { container_id: sent.container.to_string(), number: sent.number, content: Some(content) }
}
