//! Log records on their way from a guest to the host, which writes the files.
//!
//! ```text
//!  pumps ──► queue, numbered ──► feed (one at a time) ──► host
//!              ▲ forgotten when acknowledged ◄──────────────┘
//! ```
//! What is not acknowledged is kept, and a new feed begins with it. A container that has as much in the queue as it may is not
//! read any more until the host has taken some of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::{oneshot, watch};

/// Bytes of one container, and of all, with which the queue counts as full. One read more may come on top.
const CONTAINER_BYTES: usize = 256 * 1024;
const TOTAL_BYTES: usize = 2 * 1024 * 1024;
/// What a message costs besides its records.
const MESSAGE_BYTES: usize = 128;

/// The answer to a reopen: why the host could not.
pub type Reopened = oneshot::Sender<Result<(), String>>;

/// The queue of all containers. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogRelay(Arc<Inner>);

#[derive(Default)]
struct Inner {
    book: Mutex<Book>,
    /// Numbers of the newest message, of the newest acknowledged one, and of the newest feed.
    newest: watch::Sender<u64>,
    acknowledged: watch::Sender<u64>,
    feed: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    messages: VecDeque<Message>,
    last: u64,
    acknowledged: u64,
    held: HashMap<Arc<str>, usize>,
    total: usize,
}

struct Message {
    number: u64,
    container: Arc<str>,
    content: Content,
}

enum Content {
    Records(Bytes),
    Reopen(Reopened),
}

impl Content {
    fn cost(&self) -> usize {
        match self {
            Self::Records(records) => MESSAGE_BYTES + records.len(),
            Self::Reopen(_) => MESSAGE_BYTES,
        }
    }
}

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub container: Arc<str>,
    pub number: u64,
    /// `None`: the log file is to be opened anew.
    pub records: Option<Bytes>,
}

/// One container's way into the queue.
pub struct RelayedLog {
    relay: LogRelay,
    container: Arc<str>,
    /// Number of its newest message.
    newest: u64,
}

/// The way out of the queue. A newer one ends it.
pub struct Feed {
    relay: LogRelay,
    number: u64,
    sent: u64,
}

impl LogRelay {
    pub fn open(&self, container: &str) -> RelayedLog {
        RelayedLog { relay: self.clone(), container: container.into(), newest: 0 }
    }

    /// Begins with the oldest message that is not acknowledged.
    pub fn feed(&self) -> Feed {
        let mut number = 0;
        self.0.feed.send_modify(|feed| {
            *feed += 1;
            number = *feed;
        });
        Feed { relay: self.clone(), number, sent: self.lock().acknowledged }
    }

    fn push(&self, container: &Arc<str>, content: Content) -> u64 {
        let number = {
            let mut book = self.lock();
            book.last += 1;
            book.total += content.cost();
            *book.held.entry(Arc::clone(container)).or_default() += content.cost();
            let number = book.last;
            book.messages.push_back(Message { number, container: Arc::clone(container), content });
            number
        };
        self.0.newest.send_replace(number);
        number
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelayedLog {
    pub fn has_room(&self) -> bool {
        let book = self.relay.lock();
        book.total < TOTAL_BYTES && book.held.get(&self.container).is_none_or(|bytes| *bytes < CONTAINER_BYTES)
    }

    /// Resolves when there is room. Cancel safe.
    pub async fn room(&self) {
        let mut acknowledged = self.relay.0.acknowledged.subscribe();
        // The sender is ours: it cannot end before us.
        while !self.has_room() && acknowledged.changed().await.is_ok() {}
    }

    /// Whole records, each ending in a newline; also when there is no room.
    pub fn write(&mut self, records: &[u8]) {
        self.newest = self.relay.push(&self.container, Content::Records(Bytes::copy_from_slice(records)));
    }

    /// Answered when the host has done it, after everything that was written before.
    pub fn reopen(&mut self, answer: Reopened) {
        self.newest = self.relay.push(&self.container, Content::Reopen(answer));
    }

    /// Waits until the host has everything. Without a limit: a host that is gone ends the guest.
    pub async fn flushed(&self) {
        let mut acknowledged = self.relay.0.acknowledged.subscribe();
        let _ = acknowledged.wait_for(|number| *number >= self.newest).await;
    }
}

impl Feed {
    /// The next message; `None` when a newer feed has taken over. Cancel safe.
    pub async fn next(&mut self) -> Option<Sent> {
        let (mut newest, mut feed) = (self.relay.0.newest.subscribe(), self.relay.0.feed.subscribe());
        loop {
            newest.mark_unchanged();
            if *feed.borrow_and_update() != self.number {
                return None;
            }
            if let Some(sent) = self.take() {
                return Some(sent);
            }
            tokio::select! {
                _ = newest.changed() => {}
                _ = feed.changed() => {}
            }
        }
    }

    fn take(&mut self) -> Option<Sent> {
        let book = self.relay.lock();
        let message = book.messages.get(book.messages.partition_point(|message| message.number <= self.sent))?;
        let records = match &message.content {
            Content::Records(records) => Some(records.clone()),
            Content::Reopen(_) => None,
        };
        let sent = Sent { container: Arc::clone(&message.container), number: message.number, records };
        drop(book);
        self.sent = sent.number;
        Some(sent)
    }

    /// Forgets everything up to and including `through`; `error` says why that very message could not be obeyed. False for a
    /// number that this feed has not sent, and from a feed that is over.
    pub fn acknowledge(&self, through: u64, error: &str) -> bool {
        if through > self.sent || *self.relay.0.feed.borrow() != self.number {
            return false;
        }
        let mut book = self.relay.lock();
        let count = book.messages.partition_point(|message| message.number <= through);
        let done: Vec<Message> = book.messages.drain(..count).collect();
        for message in &done {
            let cost = message.content.cost();
            book.total -= cost;
            if let Some(held) = book.held.get_mut(&message.container) {
                *held -= cost;
                if *held == 0 {
                    book.held.remove(&message.container);
                }
            }
        }
        book.acknowledged = book.acknowledged.max(through);
        let acknowledged = book.acknowledged;
        drop(book);
        for message in done {
            if let Content::Reopen(answer) = message.content {
                let refused = message.number == through && !error.is_empty();
                // Whoever asked may be gone.
                let _ = answer.send(if refused { Err(error.to_owned()) } else { Ok(()) });
            }
        }
        self.relay.0.acknowledged.send_replace(acknowledged);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn text(sent: &Sent) -> (u64, &[u8]) {
        (sent.number, sent.records.as_deref().unwrap_or(b"reopen"))
    }

    #[tokio::test]
    async fn a_new_feed_begins_after_what_was_acknowledged() {
        let relay = LogRelay::default();
        let mut log = relay.open("a");
        let mut first = relay.feed();
        for record in [b"1\n", b"2\n", b"3\n"] {
            log.write(record);
        }
        for number in 1..=3 {
            assert_eq!(first.next().await.unwrap().number, number);
        }
        assert!(first.acknowledge(1, ""));
        let mut second = relay.feed();
        assert_eq!(first.next().await, None);
        assert!(!first.acknowledge(3, ""), "a feed that is over acknowledges nothing");
        assert_eq!(text(&second.next().await.unwrap()), (2, &b"2\n"[..]));
        assert!(!second.acknowledge(3, ""), "what was not sent cannot be acknowledged");
        assert_eq!(text(&second.next().await.unwrap()), (3, &b"3\n"[..]));
        assert!(second.acknowledge(3, ""));
        timeout(Duration::from_secs(5), log.flushed()).await.unwrap();
        assert!(timeout(Duration::from_millis(20), second.next()).await.is_err(), "nothing comes twice");
        log.write(b"4\n");
        assert_eq!(text(&second.next().await.unwrap()), (4, &b"4\n"[..]));
        assert!(timeout(Duration::from_millis(20), log.flushed()).await.is_err(), "the fourth is still on its way");
    }

    #[tokio::test]
    async fn a_full_container_waits_and_the_others_do_not() {
        let relay = LogRelay::default();
        let (mut full, other) = (relay.open("full"), relay.open("other"));
        full.write(&vec![b'\n'; CONTAINER_BYTES]);
        assert!(!full.has_room() && other.has_room());
        assert!(timeout(Duration::from_millis(20), full.room()).await.is_err());
        let mut feed = relay.feed();
        feed.next().await.unwrap();
        feed.acknowledge(1, "");
        timeout(Duration::from_secs(5), full.room()).await.unwrap();
        assert!(relay.lock().held.is_empty() && relay.lock().total == 0);
    }

    #[tokio::test]
    async fn all_containers_together_have_a_bound() {
        let relay = LogRelay::default();
        let mut logs: Vec<RelayedLog> = (0..TOTAL_BYTES / CONTAINER_BYTES).map(|number| relay.open(&number.to_string())).collect();
        logs.iter_mut().for_each(|log| log.write(&vec![b'\n'; CONTAINER_BYTES]));
        assert!(!relay.open("late").has_room());
    }

    #[tokio::test]
    async fn a_reopen_is_answered_in_its_place() {
        let relay = LogRelay::default();
        let (mut log, mut feed) = (relay.open("a"), relay.feed());
        let (reply, mut answer) = oneshot::channel();
        log.write(b"1\n");
        log.reopen(reply);
        feed.next().await.unwrap();
        assert_eq!(text(&feed.next().await.unwrap()), (2, &b"reopen"[..]));
        feed.acknowledge(1, "of another message");
        assert!(answer.try_recv().is_err(), "not yet acknowledged");
        feed.acknowledge(2, "disk full");
        assert_eq!(answer.await.unwrap(), Err("disk full".to_owned()));
        let (reply, answer) = oneshot::channel();
        log.reopen(reply);
        log.write(b"2\n");
        feed.next().await.unwrap();
        feed.next().await.unwrap();
        feed.acknowledge(4, "of a later one");
        assert_eq!(answer.await.unwrap(), Ok(()));
    }
}
