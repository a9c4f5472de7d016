//! The log: one line per event on standard error, which is a file on the host and the console in a guest.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::io::timestamp::{format_utc, now_ns};

/// Bytes that a bounded log takes at once, and in a second.
const BURST_BYTES: usize = 64 * 1024;
const BYTES_PER_SECOND: usize = 4 * 1024;
const BOUNDED_LINE_BYTES: usize = 2 * 1024;

struct Lines {
    level: Level,
    budget: Option<Mutex<Budget>>,
}

/// Sends everything of this level and above to standard error.
pub fn install(level: Level) {
    // A second subscriber would be a mistake of ours without consequence.
    let _ = tracing::subscriber::set_global_default(Lines { level, budget: None });
}

/// The same where every byte costs somebody: what is too much is left out, and counted.
pub fn install_bounded(level: Level) {
    let budget = Budget { bytes: BURST_BYTES, since: Instant::now(), left_out: 0 };
    let _ = tracing::subscriber::set_global_default(Lines { level, budget: Some(Mutex::new(budget)) });
}

struct Budget {
    bytes: usize,
    since: Instant,
    left_out: usize,
}

impl Budget {
    /// The line as it may be written now; `None`: not at all.
    fn take(&mut self, mut line: String, now: Instant) -> Option<String> {
        let earned = now.duration_since(self.since).as_millis() * BYTES_PER_SECOND as u128 / 1000;
        if earned > 0 {
            self.bytes = BURST_BYTES.min(self.bytes.saturating_add(usize::try_from(earned).unwrap_or(BURST_BYTES)));
            self.since = now;
        }
        if line.len() > BOUNDED_LINE_BYTES {
            let end = (0..=BOUNDED_LINE_BYTES).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
            line.push('\n');
        }
        if self.bytes < line.len() {
            self.left_out += 1;
            return None;
        }
        self.bytes -= line.len();
        match std::mem::take(&mut self.left_out) {
            0 => Some(line),
            count => Some(format!("({count} lines left out)\n{line}")),
        }
    }
}

/// What an event says: its message, and ` NAME=VALUE` for each of its fields.
#[derive(Default)]
pub(crate) struct Text {
    pub message: String,
    pub fields: String,
}

impl Text {
    pub fn of(event: &Event<'_>) -> Self {
        let mut text = Self::default();
        event.record(&mut text);
        text
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ =
            if field.name() == "message" { write!(self.message, "{value:?}") } else { write!(self.fields, " {}={value:?}", field.name()) };
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries log for their own developers.
        *metadata.level() <= self.level && metadata.target().starts_with("auraed")
    }

    fn event(&self, event: &Event<'_>) {
        let text = Text::of(event);
        let time = format_utc(now_ns());
        let line = format!("{} {} {}{}\n", String::from_utf8_lossy(&time), event.metadata().level(), text.message, text.fields);
        let line = match &self.budget {
            None => line,
            Some(budget) => match budget.lock().unwrap_or_else(PoisonError::into_inner).take(line, Instant::now()) {
                None => return,
                Some(line) => line,
            },
        };
        // A full disk must not stop a pod.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_too_much_is_counted() {
        let start = Instant::now();
        let mut budget = Budget { bytes: BURST_BYTES, since: start, left_out: 0 };
        let line = || format!("{}\n", "x".repeat(1023));
        let taken = (0..100).filter(|_| budget.take(line(), start).is_some()).count();
        assert_eq!(taken, BURST_BYTES / 1024);
        let later = budget.take(line(), start + Duration::from_millis(300)).unwrap();
        assert!(later.starts_with(&format!("({} lines left out)\n", 100 - taken)), "{later}");
        assert_eq!(budget.take("y".repeat(10_000), start + Duration::from_secs(9)).unwrap().len(), BOUNDED_LINE_BYTES + 1);
    }
}
