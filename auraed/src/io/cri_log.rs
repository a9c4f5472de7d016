//! The CRI log format: `TIMESTAMP STREAM TAG PAYLOAD\n`, tag `F` for a line's end and `P` for a part of one.

/// Most payload bytes of one record; a longer line is cut.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// Which of a process's output streams bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

impl OutputStream {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b"stdout",
            Self::Stderr => b"stderr",
        }
    }
}

/// Cuts one output stream into records. Payload is bytes, whatever they are.
pub struct LineSplitter {
    stream: OutputStream,
    /// Bytes of a line whose end has not been seen; at most `MAX_PAYLOAD`.
    pending: Vec<u8>,
}

impl LineSplitter {
    pub fn new(stream: OutputStream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Appends to `out` every record that `chunk` completes.
    pub fn push(&mut self, timestamp: &[u8], chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let room = MAX_PAYLOAD - self.pending.len();
            // One byte more than fits: a line of exactly the maximum is one record, not a part and an empty end.
            let window = &rest[..rest.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.emit(timestamp, b'F', &rest[..end], out);
                rest = &rest[end + 1..];
            } else if rest.len() > room {
                self.emit(timestamp, b'P', &rest[..room], out);
                rest = &rest[room..];
            } else {
                self.pending.extend_from_slice(rest);
                return;
            }
        }
    }

    /// Appends what is left of an unterminated line: the stream has ended.
    pub fn finish(&mut self, timestamp: &[u8], out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.emit(timestamp, b'P', &[], out);
        }
    }

    fn emit(&mut self, timestamp: &[u8], tag: u8, tail: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(timestamp);
        out.push(b' ');
        out.extend_from_slice(self.stream.name());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(tail);
        out.push(b'\n');
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut splitter = LineSplitter::new(OutputStream::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(b"T", chunk, &mut out);
        }
        splitter.finish(b"T", &mut out);
        out.split(|byte| *byte == b'\n')
            .filter(|record| !record.is_empty())
            .map(|record| {
                assert!(record.starts_with(b"T stdout "));
                (record[9], record[11..].to_vec())
            })
            .collect()
    }

    #[test]
    fn lines_across_chunks() {
        assert_eq!(
            split(&[b"a\nb", b"c\n\nd"]),
            vec![(b'F', b"a".to_vec()), (b'F', b"bc".to_vec()), (b'F', Vec::new()), (b'P', b"d".to_vec()),]
        );
    }

    #[test]
    fn a_line_of_exactly_the_maximum_is_one_record() {
        let line = vec![b'x'; MAX_PAYLOAD];
        assert_eq!(split(&[&line, b"\n"]), vec![(b'F', line.clone())]);
        let mut whole = line.clone();
        whole.push(b'\n');
        assert_eq!(split(&[&whole]), vec![(b'F', line)]);
    }

    #[test]
    fn longer_lines_are_cut_and_nothing_is_lost() {
        let line: Vec<u8> = (0..3 * MAX_PAYLOAD + 7).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
        for step in [1, 1000, MAX_PAYLOAD, MAX_PAYLOAD + 1, 5 * MAX_PAYLOAD] {
            let mut chunks: Vec<&[u8]> = line.chunks(step).collect();
            chunks.push(b"\n");
            let records = split(&chunks);
            assert_eq!(records.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"PPPF", "step {step}");
            assert!(records.iter().all(|(_, payload)| payload.len() <= MAX_PAYLOAD));
            assert_eq!(records.into_iter().flat_map(|(_, payload)| payload).collect::<Vec<_>>(), line);
        }
    }

    #[test]
    fn payload_need_not_be_utf8() {
        assert_eq!(split(&[b"\xff\x00\xfe\n"]), vec![(b'F', b"\xff\x00\xfe".to_vec())]);
    }
}
