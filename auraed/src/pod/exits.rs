//! How containers ended, as files, for a daemon that finds us dead.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::journal::Exit;

/// A directory with one file per container that has ended.
#[derive(Debug)]
pub struct Exits(PathBuf);

impl Exits {
    /// Makes `exits` in `dir` when it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let directory = dir.join("exits");
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// Whole or not at all.
    pub fn write(&self, id: &str, exit: Exit) -> io::Result<()> {
        let text = json!({ "code": exit.code, "oomKilled": exit.oom_killed, "finishedAtNs": exit.finished_at_ns.to_string() }).to_string();
        let (file, draft) = (self.0.join(format!("{id}.json")), self.0.join(format!(".{id}.json")));
        fs::write(&draft, text)?;
        fs::rename(draft, file)
    }

    pub fn remove(&self, id: &str) {
        // Not there when the container never ran.
        let _ = fs::remove_file(self.0.join(format!("{id}.json")));
    }
}
