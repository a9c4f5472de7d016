//! The mount table of this mount namespace.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::HostError;

const TABLE: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, PartialEq)]
pub struct Mount {
    pub target: PathBuf,
    pub fs_type: String,
    pub source: PathBuf,
}

/// Every mount, in the order they were made.
pub fn read() -> Result<Vec<Mount>, HostError> {
    let table = fs::read(TABLE).map_err(|error| HostError::io("read", Path::new(TABLE), error))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mounts at and below `target`, the latest first: in that order each can be unmounted.
pub fn below(target: &Path) -> Result<Vec<Mount>, HostError> {
    let mut found: Vec<_> = read()?.into_iter().filter(|mount| mount.target.starts_with(target)).collect();
    found.reverse();
    Ok(found)
}

fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let separator = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    Some(Mount {
        target: unescape(fields.get(4)?),
        fs_type: String::from_utf8_lossy(fields.get(separator + 1)?).into_owned(),
        source: unescape(fields.get(separator + 2)?),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_escapes_and_optional_fields() {
        let line = br"36 35 98:0 / /mnt\0402/a\134b rw,noatime shared:1 master:2 - ext4 /dev/root rw";
        let expected = Mount { target: r"/mnt 2/a\b".into(), fs_type: "ext4".into(), source: "/dev/root".into() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b"36 35 98:0 / /mnt rw - tmpfs none rw").map(|mount| mount.fs_type), Some("tmpfs".into()));
        assert_eq!(parse(b""), None);
    }
}
