//! FUSE messages on a byte stream: each begins with its length, four bytes in the byte order of host and guest.

use std::io::{self, Read};

/// Data of one request or reply at most, as the server offers it to the guest's kernel.
const MAX_DATA_BYTES: usize = 1 << 20;
/// Headers around the data.
const MAX_HEADER_BYTES: usize = 4096;
/// The longest message.
pub const MAX_BYTES: usize = MAX_DATA_BYTES + MAX_HEADER_BYTES;

/// Takes whole messages off a stream.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Length of the shortest message: its header.
    shortest: usize,
}

impl Inbox {
    /// For a stream whose messages have at least `shortest` bytes.
    pub fn new(shortest: usize) -> Self {
        Self { buffer: vec![0; MAX_BYTES], start: 0, end: 0, shortest }
    }

    /// Reads until there is a whole message. `None` at the end of the stream, also in the middle of a message: nobody waits for its
    /// answer. `InvalidData` for a length that no message has: nothing after it can be understood.
    pub fn next(&mut self, stream: &mut impl Read) -> io::Result<Option<&mut [u8]>> {
        loop {
            if let Some(length) = self.length()?
                && self.end - self.start >= length
            {
                let message = self.start..self.start + length;
                self.start += length;
                return Ok(Some(&mut self.buffer[message]));
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(None),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else { return Ok(None) };
        let length = usize::try_from(u32::from_ne_bytes(*bytes)).unwrap_or(usize::MAX);
        if (self.shortest..=MAX_BYTES).contains(&length) {
            return Ok(Some(length));
        }
        let reason = format!("a message of {length} bytes, {} to {MAX_BYTES} are possible", self.shortest);
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `1` byte per read.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn message(length: u32, fill: u8) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.resize(length as usize, fill);
        bytes
    }

    #[test]
    fn messages_come_whole_and_in_order_however_the_stream_is_cut() {
        let (longest, short) = (message(MAX_BYTES as u32, 1), message(16, 2));
        let stream = [short.clone(), longest.clone(), short.clone(), short[..10].to_vec()].concat();
        let mut inbox = Inbox::new(16);
        let mut source = stream.as_slice();
        for expected in [&short, &longest, &short] {
            assert_eq!(inbox.next(&mut source).unwrap().unwrap(), expected);
        }
        assert!(inbox.next(&mut source).unwrap().is_none());
        let two = [short.clone(), short.clone()].concat();
        let (mut inbox, mut source) = (Inbox::new(16), Trickle(&two));
        assert_eq!(inbox.next(&mut source).unwrap().unwrap(), short);
        assert_eq!(inbox.next(&mut source).unwrap().unwrap(), short);
    }

    #[test]
    fn a_length_that_no_message_has_is_refused() {
        for length in [0, 15, MAX_BYTES as u32 + 1, u32::MAX] {
            let refused = Inbox::new(16).next(&mut length.to_ne_bytes().as_slice()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }
}
