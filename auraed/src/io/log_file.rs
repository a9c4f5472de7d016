//! A container's log file: appended to, reopened on request, never in the way of the container.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum LogFileError {
    #[error("log file {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
}

/// Where records go. A failing write (disk full, I/O error) drops whole records and counts them: a container is never made
/// to wait for a disk, and the file never holds half a record followed by another.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Rest of a record of which a part has been written: it comes before anything else.
    torn: Vec<u8>,
    dropped_records: u64,
}

impl LogFile {
    /// Opens `path` for appending, with mode 0640, and makes its parent directories.
    pub fn open(path: &Path) -> Result<Self, LogFileError> {
        let file = open_append(path).map_err(|source| LogFileError::Open { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, torn: Vec::new(), dropped_records: 0 })
    }

    /// Writes whole records, each ending in a newline.
    pub fn write(&mut self, records: &[u8]) {
        if !self.torn.is_empty() {
            let torn = std::mem::take(&mut self.torn);
            let (written, error) = write_some(&mut self.file, &torn);
            if let Some(error) = error {
                self.torn = torn[written..].to_vec();
                self.note_dropped(records, &error);
                return;
            }
        }
        let (written, error) = write_some(&mut self.file, records);
        match error {
            None => self.note_recovery(),
            Some(error) => {
                let at_boundary = written == 0 || records[written - 1] == b'\n';
                let rest = &records[written..];
                let record_end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
                let torn_len = if at_boundary { 0 } else { record_end };
                self.torn = rest[..torn_len].to_vec();
                self.note_dropped(&rest[torn_len..], &error);
            }
        }
    }

    /// Opens the path anew: every later record goes to the file that is there now. On failure the old file stays.
    pub fn reopen(&mut self) -> Result<(), LogFileError> {
        let file = open_append(&self.path).map_err(|source| LogFileError::Open { path: self.path.clone(), source })?;
        let torn = std::mem::take(&mut self.torn);
        // The rest of a torn record belongs to the file that has its beginning; when that still fails it is lost with it.
        let _ = write_some(&mut self.file, &torn);
        self.file = file;
        Ok(())
    }

    fn note_dropped(&mut self, records: &[u8], error: &io::Error) {
        let first = self.dropped_records == 0;
        self.dropped_records += records.iter().filter(|byte| **byte == b'\n').count() as u64;
        if first && self.dropped_records > 0 {
            tracing::warn!(path = %self.path.display(), %error, "log records are being dropped");
        }
    }

    fn note_recovery(&mut self) {
        if self.dropped_records > 0 {
            tracing::warn!(path = %self.path.display(), dropped_records = self.dropped_records, "log file is written again");
            self.dropped_records = 0;
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// How much was written, and why not all.
fn write_some(file: &mut File, mut bytes: &[u8]) -> (usize, Option<io::Error>) {
    let total = bytes.len();
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return (total - bytes.len(), Some(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (total - bytes.len(), Some(error)),
        }
    }
    (total, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn reopen_moves_to_the_new_file() {
        let dir = std::env::temp_dir().join(format!("auraed-log-file-{}", std::process::id()));
        let path = dir.join("deep/er/0.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"one\n");
        std::fs::rename(&path, dir.join("rotated")).unwrap();
        log.write(b"two\n");
        log.reopen().unwrap();
        log.write(b"three\n");
        assert_eq!(std::fs::read(dir.join("rotated")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_full_disk_drops_records_and_is_survived() {
        let mut log = LogFile::open(Path::new("/dev/full")).unwrap();
        log.write(b"a\nb\n");
        log.write(b"c\n");
        assert_eq!(log.dropped_records, 3);
        assert!(log.torn.is_empty());
    }
}
