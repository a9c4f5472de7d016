//! Who a container's process is, looked up in the image's own passwd and group files.

use std::io::{self, BufRead, BufReader, Read};

use super::RootfsError;
use super::root::Root;
use crate::api::pod::v0::{ResolvedUser, UserQuery};

/// Ids above this are refused, as Kubernetes does.
const MAX_ID: u64 = i32::MAX as u64;
/// A passwd or group file longer than this is refused: cut short, it would give other answers.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// A user or group as it was written.
#[derive(Debug, PartialEq)]
enum Principal {
    Id(u32),
    Name(String),
}

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Finds the user the query names.
pub fn find(root: &Root, query: &UserQuery) -> Result<ResolvedUser, RootfsError> {
    let (user, group) = wanted(query)?;
    let entry = find_passwd(root, &user)?;
    let (uid, entry) = match (&user, entry) {
        (Principal::Id(uid), entry) => (*uid, entry),
        (Principal::Name(_), Some(entry)) => (entry.uid, Some(entry)),
        (Principal::Name(name), None) => {
            return Err(RootfsError::invalid("user", name, "no such user in the image's /etc/passwd"));
        }
    };
    let gid = match group {
        None => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(Principal::Id(gid)) => gid,
        Some(Principal::Name(name)) => find_group(root, &name)?,
    };
    let mut additional_gids = vec![gid];
    for &listed in &query.supplemental_groups {
        additional_gids.push(check_id("user.supplemental_groups", &listed.to_string(), u64::from(listed))?);
    }
    let username = entry.as_ref().map(|entry| entry.name.clone()).unwrap_or_default();
    if !query.strict_groups && !username.is_empty() {
        additional_gids.extend(groups_of(root, &username)?);
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or_else(|| "/".into());
    Ok(ResolvedUser { uid, gid, additional_gids, home, username })
}

/// The user and group asked for: a uid wins over a name, a name over what the image says.
fn wanted(query: &UserQuery) -> Result<(Principal, Option<Principal>), RootfsError> {
    let gid = match query.gid {
        Some(gid) => Some(Principal::Id(signed_id("user.gid", gid)?)),
        None => None,
    };
    if let Some(uid) = query.uid {
        return Ok((Principal::Id(signed_id("user.uid", uid)?), gid));
    }
    if !query.username.is_empty() {
        return Ok((Principal::Name(query.username.clone()), gid));
    }
    if gid.is_some() {
        return Err(RootfsError::invalid("user.gid", format!("{:?}", query.gid.unwrap_or(0)), "needs a uid or a username beside it"));
    }
    let (user, group) = query.image_user.split_once(':').unwrap_or((&query.image_user, ""));
    let user = if user.is_empty() { Principal::Id(0) } else { principal(user)? };
    let group = if group.is_empty() { None } else { Some(principal(group)?) };
    Ok((user, group))
}

/// Digits alone are an id, all else a name.
fn principal(text: &str) -> Result<Principal, RootfsError> {
    if text.contains([':', '\n', '\0']) {
        return Err(RootfsError::invalid("user.image_user", text, "not of the form USER or USER:GROUP"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Principal::Name(text.into()));
    }
    check_id("user.image_user", text, text.parse().unwrap_or(u64::MAX)).map(Principal::Id)
}

fn signed_id(field: &'static str, id: i64) -> Result<u32, RootfsError> {
    check_id(field, &id.to_string(), u64::try_from(id).unwrap_or(u64::MAX))
}

fn check_id(field: &'static str, text: &str, id: u64) -> Result<u32, RootfsError> {
    match u32::try_from(id) {
        Ok(small) if id <= MAX_ID => Ok(small),
        _ => Err(RootfsError::invalid(field, text, format!("ids range from 0 to {MAX_ID}"))),
    }
}

fn find_passwd(root: &Root, user: &Principal) -> Result<Option<Passwd>, RootfsError> {
    let mut found = None;
    each_line(root, "/etc/passwd", |fields| {
        let [name, _, uid, gid, _, home, ..] = fields else { return true };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { return true };
        let matches = match user {
            Principal::Id(wanted) => *wanted == uid,
            Principal::Name(wanted) => wanted == name,
        };
        if matches {
            found = Some(Passwd { name: (*name).into(), uid, gid, home: (*home).into() });
        }
        !matches
    })?;
    if let Some(Passwd { uid, gid, .. }) = &found {
        check_id("user", &uid.to_string(), u64::from(*uid))?;
        check_id("user", &gid.to_string(), u64::from(*gid))?;
    }
    Ok(found)
}

fn find_group(root: &Root, wanted: &str) -> Result<u32, RootfsError> {
    let mut found: Option<u32> = None;
    each_line(root, "/etc/group", |fields| {
        if let [name, _, gid, ..] = fields
            && *name == wanted
        {
            found = gid.parse().ok();
        }
        found.is_none()
    })?;
    match found {
        Some(gid) => check_id("user", wanted, u64::from(gid)),
        None => Err(RootfsError::invalid("user", wanted, "no such group in the image's /etc/group")),
    }
}

fn groups_of(root: &Root, user: &str) -> Result<Vec<u32>, RootfsError> {
    let mut gids = Vec::new();
    each_line(root, "/etc/group", |fields| {
        if let [_, _, gid, members, ..] = fields
            && members.split(',').any(|member| member == user)
            && let Ok(gid) = gid.parse::<u32>()
            && u64::from(gid) <= MAX_ID
        {
            gids.push(gid);
        }
        true
    })?;
    Ok(gids)
}

/// Calls `visit` with the fields of each line until it says false. A missing file has no lines.
fn each_line(root: &Root, path: &'static str, mut visit: impl FnMut(&[&str]) -> bool) -> Result<(), RootfsError> {
    let fail = |error| RootfsError::io(format!("read the image's {path}"), error);
    let file = match root.read_file(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.map_err(fail)?,
    };
    if file.metadata().map_err(fail)?.len() > MAX_FILE_BYTES {
        return Err(RootfsError::invalid("user", path, format!("the image's file is larger than {MAX_FILE_BYTES} bytes")));
    }
    for line in BufReader::new(file.take(MAX_FILE_BYTES)).split(b'\n') {
        let line = line.map_err(fail)?;
        // A line that is not text names nobody.
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        let fields: Vec<&str> = text.trim_end_matches('\r').splitn(8, ':').collect();
        if !visit(&fields) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "user_test.rs"]
mod tests;
