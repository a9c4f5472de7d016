//! The `--log` file: one JSON object a line with `level`, `msg` and `time`, as callers of OCI runtimes expect.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use super::OciError;
use crate::log::Text;

struct JsonLines {
    file: File,
    level: Level,
}

/// Sends everything logged from here on to `path`; with no path, nothing is logged.
pub fn install(path: Option<&Path>, debug: bool) -> Result<(), OciError> {
    let Some(path) = path else { return Ok(()) };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| OciError::io(format!("--log {}", path.display()), error))?;
    let level = if debug { Level::DEBUG } else { Level::WARN };
    tracing::subscriber::set_global_default(JsonLines { file, level }).map_err(|error| OciError::runtime("installing the log", error))
}

impl Subscriber for JsonLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let text = Text::of(event);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = serde_json::json!({
            "level": level,
            "msg": format!("{}{}", text.message, text.fields),
            "time": super::features::rfc3339(now.as_secs()),
        });
        // One write a line: the processes libcontainer forks append to the same file. A full disk must not stop a container.
        let _ = (&self.file).write_all(format!("{line}\n").as_bytes());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
