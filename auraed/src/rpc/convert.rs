//! Conversions that more than one RPC needs.

use std::path::PathBuf;

use super::call;
use crate::api::pod::v0 as api;
use crate::api::supervisor::v0 as supervisor;
use crate::idmap::IdMapping;
use crate::pod::errors::PodError;
use crate::pod::journal::{Exit, Phase, View};

/// Whether it can become a file name: 1 to 128 letters, digits, `_`, `-` and `.`, beginning with one of the first two.
pub fn is_container_id(id: &str) -> bool {
    let plain = id.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.'));
    plain && id.len() <= 128 && id.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A container id, checked.
pub fn container_id(id: String) -> Result<String, PodError> {
    if is_container_id(&id) {
        call::about_container(&id);
        Ok(id)
    } else {
        Err(PodError::Invalid { field: "container_id", problem: "must be 1 to 128 letters, digits, `_`, `-` and `.`".to_owned() })
    }
}

/// A path that means the same wherever it is used.
pub fn absolute(field: &'static str, path: String) -> Result<PathBuf, PodError> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(PathBuf::from(path))
    } else {
        Err(PodError::Invalid { field, problem: "must be an absolute path".to_owned() })
    }
}

pub fn id_mappings(lines: Vec<supervisor::IdMapping>) -> Vec<IdMapping> {
    lines.into_iter().map(|line| IdMapping { container_id: line.container_id, host_id: line.host_id, size: line.size }).collect()
}

pub fn container(view: View) -> api::Container {
    let state = match view.phase {
        Phase::Prepared => api::ContainerState::Prepared,
        Phase::Created => api::ContainerState::Created,
        Phase::Running => api::ContainerState::Running,
        Phase::Exited => api::ContainerState::Exited,
    };
    api::Container {
        container_id: view.id,
        state: state.into(),
        pid: view.pid,
        created_at_ns: view.created_at_ns,
        started_at_ns: view.started_at_ns,
        exit: view.exit.map(exit),
    }
}

fn exit(exit: Exit) -> api::Exit {
    api::Exit { code: exit.code, oom_killed: exit.oom_killed, finished_at_ns: exit.finished_at_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "0a-b_c.d", &"f".repeat(64)] {
            assert!(container_id(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\0", &"f".repeat(129)] {
            assert!(container_id(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
