//! The newest bytes of something that never ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

const CHUNK_BYTES: usize = 4096;

/// At most so many bytes. Cheap to clone.
#[derive(Clone)]
pub struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    most: usize,
}

impl Tail {
    pub fn new(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    pub fn push(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.most)..];
        let mut kept = self.lock();
        let surplus = (kept.len() + bytes.len()).saturating_sub(self.most);
        kept.drain(..surplus);
        kept.extend(bytes);
    }

    /// Bytes that are not UTF-8 replaced.
    pub fn text(&self) -> String {
        let kept = self.lock();
        let (front, back) = kept.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }

    /// The newest line with something on it, cut to what a message can carry.
    pub fn last_line(&self) -> Option<String> {
        const MOST: usize = 256;
        let text = self.text();
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().filter(|character| !character.is_control()).take(MOST).collect())
    }

    /// Reads to the end.
    pub async fn follow(self, mut source: impl AsyncRead + Unpin) {
        let mut chunk = vec![0u8; CHUNK_BYTES];
        // A source that fails has ended.
        while let Ok(count @ 1..) = source.read(&mut chunk).await {
            self.push(&chunk[..count]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes() {
        let tail = Tail::new(8);
        tail.push(b"0123456");
        tail.push(b"789");
        assert_eq!(tail.text(), "23456789");
        tail.push(b"abcdefghijkl");
        assert_eq!(tail.text(), "efghijkl");
        assert_eq!(Tail::new(0).last_line(), None);
    }

    #[test]
    fn the_last_line_is_plain_text() {
        let tail = Tail::new(64);
        tail.push(b"one\r\n\x1b[1mKernel panic\xff\r\n\r\n");
        assert_eq!(tail.last_line().unwrap(), "[1mKernel panic\u{fffd}");
    }
}
