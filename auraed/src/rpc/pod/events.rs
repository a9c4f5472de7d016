//! Events: every one after a number, then live ones.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Outgoing;
use crate::api::pod::v0 as api;
use crate::pod::journal::{Event, Journal, Kind};
use crate::rpc::convert::container;

pub fn serve(journal: &Journal, request: api::EventsRequest) -> Outgoing<api::Event> {
    let journal = journal.clone();
    // One in hand: what is not yet wanted stays in the journal.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut newest = journal.follow();
        let mut after = request.after;
        loop {
            let open = newest.borrow_and_update().is_some();
            let batch = journal.after(after);
            if batch.is_empty() {
                if !open {
                    return;
                }
                let changed = tokio::select! {
                    changed = newest.changed() => changed.is_ok(),
                    () = sender.closed() => false,
                };
                if !changed {
                    return;
                }
            }
            for event in batch {
                after = event.number;
                if sender.send(Ok(message(event))).await.is_err() {
                    return;
                }
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

fn message(event: Event) -> api::Event {
    let kind = match event.kind {
        Kind::Created => api::EventKind::Created,
        Kind::Started => api::EventKind::Started,
        Kind::Exited => api::EventKind::Exited,
        Kind::Deleted => api::EventKind::Deleted,
    };
    api::Event { number: event.number, timestamp_ns: event.timestamp_ns, container: Some(container(event.view)), kind: kind.into() }
}
