//! What has happened in the pod, numbered, until the daemon holds it durably; and how every container is now.
//!
//! One lock, never held across a wait, makes a snapshot of the containers and the number of the newest event agree.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::io::timestamp::now_ns;

/// Events handed out at once.
const BATCH: usize = 256;

/// A container's place in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Prepared,
    Created,
    Running,
    Exited,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + n when signal n ended its first process.
    pub code: i32,
    pub oom_killed: bool,
    pub finished_at_ns: i64,
}

/// A container as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub id: String,
    pub phase: Phase,
    /// 0 without a process.
    pub pid: i32,
    pub created_at_ns: i64,
    /// 0 until started.
    pub started_at_ns: i64,
    pub exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Created,
    Started,
    Exited,
    Deleted,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub number: u64,
    pub timestamp_ns: i64,
    pub kind: Kind,
    pub view: View,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    book: Arc<Mutex<Book>>,
    newest: Arc<watch::Sender<Option<u64>>>,
    acknowledged: Arc<Notify>,
}

#[derive(Default)]
struct Book {
    views: BTreeMap<String, View>,
    events: VecDeque<Event>,
    last: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { book: Arc::default(), newest: Arc::new(watch::Sender::new(Some(0))), acknowledged: Arc::default() }
    }
}

impl Journal {
    /// A change nobody is told of: a container was prepared, or what was prepared is gone.
    pub fn set(&self, id: &str, view: Option<View>) {
        let mut book = self.lock();
        match view {
            Some(view) => drop(book.views.insert(id.to_owned(), view)),
            None => drop(book.views.remove(id)),
        }
    }

    /// Records a change and tells those who follow.
    pub fn publish(&self, kind: Kind, view: View) {
        let number = {
            let mut book = self.lock();
            book.last += 1;
            let number = book.last;
            if kind == Kind::Deleted {
                book.views.remove(&view.id);
            } else {
                book.views.insert(view.id.clone(), view.clone());
            }
            book.events.push_back(Event { number, timestamp_ns: now_ns(), kind, view });
            number
        };
        self.newest.send_modify(|newest| {
            if newest.is_some() {
                *newest = Some(number);
            }
        });
    }

    /// Every container, and the newest event that this reflects.
    pub fn snapshot(&self) -> (Vec<View>, u64) {
        let book = self.lock();
        (book.views.values().cloned().collect(), book.last)
    }

    /// The oldest events above `after`, as many as one batch holds.
    pub fn after(&self, after: u64) -> Vec<Event> {
        let book = self.lock();
        let first = book.events.partition_point(|event| event.number <= after);
        book.events.range(first..).take(BATCH).cloned().collect()
    }

    /// Forgets events up to and including `through`.
    pub fn acknowledge(&self, through: u64) {
        let mut book = self.lock();
        let kept = book.events.partition_point(|event| event.number <= through);
        book.events.drain(..kept);
        drop(book);
        self.acknowledged.notify_waiters();
    }

    /// Waits until fewer than `most` events are to be acknowledged.
    pub async fn room(&self, most: usize) {
        loop {
            let acknowledged = self.acknowledged.notified();
            if self.lock().events.len() < most {
                return;
            }
            acknowledged.await;
        }
    }

    /// The number of the newest event, as it changes; `None` when there will be no more.
    pub fn follow(&self) -> watch::Receiver<Option<u64>> {
        self.newest.subscribe()
    }

    /// Ends every follower.
    pub fn close(&self) {
        self.newest.send_replace(None);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str) -> View {
        View { id: id.to_owned(), phase: Phase::Created, pid: 1, created_at_ns: 1, started_at_ns: 0, exit: None }
    }

    #[test]
    fn events_are_kept_until_acknowledged() {
        let journal = Journal::default();
        for _ in 0..3 {
            journal.publish(Kind::Created, view("a"));
        }
        assert_eq!(journal.after(1).iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3]);
        journal.acknowledge(2);
        assert_eq!(journal.after(0).iter().map(|event| event.number).collect::<Vec<_>>(), [3]);
        journal.acknowledge(9);
        journal.publish(Kind::Deleted, view("a"));
        assert_eq!(journal.after(0).iter().map(|event| event.number).collect::<Vec<_>>(), [4]);
        assert_eq!(journal.snapshot(), (Vec::new(), 4));
    }
}
