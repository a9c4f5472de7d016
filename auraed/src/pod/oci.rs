//! The OCI runtime's command line: our own `auraed oci`, or another runtime by configuration. Every call a short process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use super::children::Children;
use crate::io::stdio::ChildStdio;
use crate::sys::process;

/// A call that takes longer is hung: its process is killed.
const CALL_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
pub enum OciError {
    #[error("could not {action}: {source}")]
    Io { action: &'static str, source: io::Error },
    #[error("OCI runtime {operation}: {message}")]
    Failed { operation: String, message: String },
    #[error("OCI runtime {operation}: killed after {} s", CALL_LIMIT.as_secs())]
    Hung { operation: String },
    #[error("OCI runtime {operation}: left no process id")]
    NoPid { operation: String },
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> OciError {
    move |source| OciError::Io { action, source }
}

/// How to call the OCI runtime.
pub struct OciRuntime {
    program: PathBuf,
    /// It is our own binary, with a way to start in front.
    own: bool,
    state_dir: PathBuf,
    work_dir: PathBuf,
    children: Children,
}

/// Files of one call, removed with it.
pub struct CallFiles {
    pub pid: PathBuf,
    log: PathBuf,
    pub input: PathBuf,
}

impl Drop for CallFiles {
    fn drop(&mut self) {
        for file in [&self.pid, &self.log, &self.input] {
            // One that was never made is no matter.
            let _ = fs::remove_file(file);
        }
    }
}

impl OciRuntime {
    /// `external`: another runtime's binary. Its state goes below `dir`.
    pub fn open(dir: &Path, own_binary: &Path, external: Option<&Path>, children: Children) -> io::Result<Self> {
        let (program, own) = external.map_or((own_binary, true), |path| (path, false));
        let (state_dir, work_dir) = (dir.join("oci"), dir.join("work"));
        for path in [&state_dir, &work_dir] {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        Ok(Self { program: program.to_owned(), own, state_dir, work_dir, children })
    }

    /// Directory for sockets and other short-lived files.
    pub fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    /// Names for the files of a call; `tag` is unique among calls under way.
    pub fn files(&self, tag: &str) -> CallFiles {
        let path = |suffix: &str| self.work_dir.join(format!("{tag}.{suffix}"));
        CallFiles { pid: path("pid"), log: path("log"), input: path("json") }
    }

    /// `systemd`: the bundle's cgroup path is `slice:prefix:name`.
    pub async fn create(
        &self,
        id: &str,
        (bundle, systemd): (&Path, bool),
        console: Option<&Path>,
        files: &CallFiles,
        stdio: ChildStdio,
    ) -> Result<(), OciError> {
        let mut args = words(["create", "--bundle"]);
        args.push(bundle.into());
        push_process_args(&mut args, console, files);
        args.push(id.into());
        self.call("create", systemd, args, files, stdio).await
    }

    pub async fn start(&self, id: &str, files: &CallFiles) -> Result<(), OciError> {
        self.call("start", false, words(["start", id]), files, ChildStdio::null()).await
    }

    pub async fn delete(&self, id: &str, files: &CallFiles) -> Result<(), OciError> {
        self.call("delete", false, words(["delete", "--force", id]), files, ChildStdio::null()).await
    }

    /// `files.input` holds the OCI `linux.resources`.
    pub async fn update(&self, id: &str, files: &CallFiles) -> Result<(), OciError> {
        let mut args = words(["update", "--resources"]);
        args.push(files.input.clone().into());
        args.push(id.into());
        self.call("update", false, args, files, ChildStdio::null()).await
    }

    /// `files.input` holds the OCI process; `cgroup` names, as `[CONTROLLER:]PATH`, a cgroup below the container's.
    pub async fn exec(
        &self,
        id: &str,
        (console, cgroup): (Option<&Path>, Option<&str>),
        files: &CallFiles,
        stdio: ChildStdio,
    ) -> Result<(), OciError> {
        let mut args = words(["exec", "--detach", "--process"]);
        args.push(files.input.clone().into());
        if let Some(cgroup) = cgroup {
            args.extend(words(["--cgroup", cgroup]));
        }
        push_process_args(&mut args, console, files);
        args.push(id.into());
        self.call("exec", false, args, files, stdio).await
    }

    /// Whether the runtime keeps state of a container of this name.
    pub fn knows(&self, id: &str) -> bool {
        self.state_dir.join(id).exists()
    }

    async fn call(
        &self,
        operation: &str,
        systemd: bool,
        args: Vec<OsString>,
        files: &CallFiles,
        stdio: ChildStdio,
    ) -> Result<(), OciError> {
        let mut command = Command::new(&self.program);
        if self.own {
            command.arg("oci");
        }
        command.arg("--root").arg(&self.state_dir).arg("--log").arg(&files.log).args(["--log-format", "json"]);
        if systemd {
            command.arg("--systemd-cgroup");
        }
        command.args(args).stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
        let child = self.children.spawn(&mut command).map_err(failed("start the OCI runtime"))?;
        // Our copies of the process's ends: with them open, the ends of its streams would never be seen.
        drop(command);
        match tokio::time::timeout(CALL_LIMIT, child.exited).await {
            Ok(Ok(exited)) if exited.code == 0 => Ok(()),
            Ok(Ok(exited)) => {
                let message = last_error(&files.log).unwrap_or_else(|| format!("ended with {}", exited.code));
                Err(OciError::Failed { operation: operation.to_owned(), message })
            }
            Ok(Err(_)) | Err(_) => {
                process::send_signal(child.pid, nix::libc::SIGKILL);
                Err(OciError::Hung { operation: operation.to_owned() })
            }
        }
    }
}

impl CallFiles {
    /// The process id the runtime wrote.
    pub fn read_pid(&self, operation: &str) -> Result<i32, OciError> {
        fs::read_to_string(&self.pid)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| OciError::NoPid { operation: operation.to_owned() })
    }
}

fn words<const N: usize>(list: [&str; N]) -> Vec<OsString> {
    list.into_iter().map(|word| OsStr::new(word).to_owned()).collect()
}

fn push_process_args(args: &mut Vec<OsString>, console: Option<&Path>, files: &CallFiles) {
    args.push("--pid-file".into());
    args.push(files.pid.clone().into());
    if let Some(console) = console {
        args.push("--console-socket".into());
        args.push(console.into());
    }
}

/// The text of the last error in a runtime's JSON log. runc and crun write `msg`, youki `message`.
fn last_error(log: &Path) -> Option<String> {
    let text = fs::read(log).ok()?;
    let lines = String::from_utf8_lossy(&text);
    let entries: Vec<serde_json::Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let is_error = |entry: &&serde_json::Value| {
        let level = entry.get("level").and_then(serde_json::Value::as_str).unwrap_or_default();
        level.eq_ignore_ascii_case("error") || level.eq_ignore_ascii_case("fatal")
    };
    let entry = entries.iter().rev().find(is_error).or(entries.last())?;
    let message =
        entry.get("msg").or_else(|| entry.get("message")).or_else(|| entry.get("fields").and_then(|fields| fields.get("message")))?;
    Some(message.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log() {
        let log = std::env::temp_dir().join(format!("auraed-oci-log-{}", std::process::id()));
        for (text, expected) in [
            ("", None),
            ("not json\n", None),
            ("{\"level\":\"error\",\"msg\":\"a\"}\n{\"level\":\"error\",\"msg\":\"b\"}\n{\"level\":\"info\",\"msg\":\"c\"}\n", Some("b")),
            ("{\"level\":\"ERROR\",\"message\":\"y\"}\n", Some("y")),
        ] {
            fs::write(&log, text).unwrap();
            assert_eq!(last_error(&log).as_deref(), expected);
        }
        fs::remove_file(&log).unwrap();
    }
}
