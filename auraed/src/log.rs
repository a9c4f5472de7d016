//! The log of a supervisor: one line per event on standard error, which whoever started us made a file.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::io::timestamp::{format_utc, now_ns};

struct Lines(Level);

/// Sends everything of this level and above to standard error.
pub fn install(level: Level) {
    // A second subscriber would be a mistake of ours without consequence.
    let _ = tracing::subscriber::set_global_default(Lines(level));
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
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
        *metadata.level() <= self.0 && metadata.target().starts_with("auraed")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let time = format_utc(now_ns());
        let line = format!("{} {} {}{}\n", String::from_utf8_lossy(&time), event.metadata().level(), text.message, text.fields);
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
