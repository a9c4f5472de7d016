//! Further processes in a running container.
//!
//! Each gets a cgroup below the container's, so that a timeout ends all of its tree: a new session or a second fork does
//! not leave a cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Shared;
use super::children::{Child, Exited};
use super::container::Live;
use super::errors::PodError;
use super::journal::Phase;
use crate::cgroup::procs;
use crate::io::stdio::{self, AsyncStream, Streams};
use crate::io::terminal::ConsoleSocket;

/// How long output may still come after the command has ended: a background child may hold the pipes for ever.
pub const OUTPUT_DRAIN: Duration = Duration::from_millis(200);

/// Rounds of moving what is left in the background; what forks faster stays with its cgroup.
const RELEASE_ROUNDS: u32 = 10;

static NEXT_EXEC: AtomicU64 = AtomicU64::new(1);

/// What to run.
pub struct ExecSpec {
    pub command: Vec<String>,
    pub terminal: bool,
    pub stdin: bool,
    /// Columns and rows of the terminal at the start; 0 for unknown.
    pub size: (u16, u16),
}

/// A command that ran to its end.
#[derive(Debug)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// A process started in a container. Dropped before its end, it is killed with everything it started.
pub struct ExecProcess {
    child: Child,
    tree: ProcessTree,
}

impl ExecProcess {
    /// Starts the command and hands out our ends of its streams.
    pub async fn start(shared: &Shared, live: &Live, spec: &ExecSpec) -> Result<(Self, Streams), PodError> {
        if spec.command.is_empty() {
            return Err(PodError::Invalid { field: "command", problem: "is empty: name a program".to_owned() });
        }
        if live.phase != Phase::Running {
            return Err(PodError::WrongPhase { id: live.id.clone(), is: "created", wanted: "running" });
        }
        let owner = shared.owner_of(&live.process)?;
        let number = NEXT_EXEC.fetch_add(1, Ordering::Relaxed);
        let files = shared.oci.files(&format!("exec-{number}"));
        fs::write(&files.input, process_json(&live.process, spec).to_string()).map_err(PodError::io("write the process"))?;
        let tree = ProcessTree::make(live.cgroup.process_hierarchy(), number)?;
        let cgroup = tree.sub_cgroup.as_deref();
        let orphan = shared.children.expect_orphan();
        let streams = if spec.terminal {
            let console = ConsoleSocket::listen(shared.oci.work_dir(), &format!("exec-{number}.tty"))
                .map_err(PodError::io("make a console socket"))?;
            shared.oci.exec(&live.id, (Some(console.address()), cgroup), &files, stdio::ChildStdio::null()).await?;
            let master = console.receive().await.and_then(AsyncStream::new).map_err(PodError::io("receive the terminal"))?;
            stdio::give_terminal(&master, owner.0).map_err(PodError::io("give the terminal to its user"))?;
            Streams::Terminal(Arc::new(master))
        } else {
            let (streams, child) = stdio::pipes(spec.stdin, owner).map_err(PodError::io("make pipes"))?;
            shared.oci.exec(&live.id, (None, cgroup), &files, child).await?;
            streams
        };
        let child = shared.children.adopt(files.read_pid("exec")?).map_err(PodError::io("adopt the process"))?;
        drop(orphan);
        Ok((Self { child, tree }, streams))
    }

    /// Resolves when the process has ended.
    pub async fn ended(&mut self) -> i32 {
        match (&mut self.child.exited).await {
            Ok(Exited { code, .. }) => code,
            Err(_) => 255,
        }
    }

    /// Kills the process and everything it started.
    pub async fn kill(self) {
        self.tree.kill().await;
    }

    /// What the process left running in the background goes on in the container's own cgroup.
    pub fn release(self) {
        self.tree.release();
    }
}

/// Runs a command to its end. When the returned future is dropped, or time is up, the whole tree is killed.
pub async fn run_sync(
    shared: Arc<Shared>,
    live: Live,
    command: Vec<String>,
    timeout_ms: u64,
    output_limit: usize,
) -> Result<Output, PodError> {
    let (reply, answer) = oneshot::channel();
    // A task of its own: a caller that gives up must not leave the process running.
    tokio::spawn(async move {
        let mut reply = reply;
        let result = attend(&shared, &live, command, timeout_ms, output_limit, &mut reply).await;
        let _ = reply.send(result);
    });
    answer.await.map_err(|_| PodError::ShuttingDown)?
}

async fn attend(
    shared: &Shared,
    live: &Live,
    command: Vec<String>,
    timeout_ms: u64,
    output_limit: usize,
    caller: &mut oneshot::Sender<Result<Output, PodError>>,
) -> Result<Output, PodError> {
    let deadline = (timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(timeout_ms));
    let spec = ExecSpec { command, terminal: false, stdin: false, size: (0, 0) };
    let (mut process, streams) = ExecProcess::start(shared, live, &spec).await?;
    let Streams::Pipes { stdout, stderr, .. } = streams else {
        return Err(PodError::Invalid { field: "terminal", problem: "is not for commands run to their end".to_owned() });
    };
    let mut captures = (Capture::new(stdout, output_limit), Capture::new(stderr, output_limit));
    let ended = {
        let (stdout, stderr) = (&mut captures.0, &mut captures.1);
        let run = async {
            let read = async { tokio::join!(stdout.read_all(), stderr.read_all()) };
            tokio::pin!(read);
            let mut read_done = false;
            let code = loop {
                tokio::select! {
                    code = process.ended() => break code,
                    _ = &mut read, if !read_done => read_done = true,
                }
            };
            if !read_done {
                let _ = timeout_at(Instant::now() + OUTPUT_DRAIN, read).await;
            }
            code
        };
        tokio::select! {
            code = run => Some(code),
            () = expired(deadline) => None,
            () = caller.closed() => None,
        }
    };
    match ended {
        Some(exit_code) => {
            process.release();
            Ok(Output { stdout: captures.0.kept, stderr: captures.1.kept, exit_code })
        }
        None => {
            process.kill().await;
            Err(PodError::Timeout { timeout_ms })
        }
    }
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One stream's output, up to a limit; the rest is read and dropped so that the process is not stopped by it.
struct Capture {
    stream: AsyncStream,
    kept: Vec<u8>,
    limit: usize,
}

impl Capture {
    fn new(stream: AsyncStream, limit: usize) -> Self {
        Self { stream, kept: Vec::new(), limit }
    }

    async fn read_all(&mut self) {
        loop {
            if self.stream.readable().await.is_err() || !self.read_some() {
                return;
            }
        }
    }

    /// `false` at the end.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        match self.stream.try_read(&mut buffer) {
            Ok(Some(0)) | Err(_) => false,
            Ok(Some(count)) => {
                let room = self.limit.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&buffer[..count.min(room)]);
                true
            }
            Ok(None) => true,
        }
    }
}

/// The container's own process with the command, the terminal and nothing else changed.
fn process_json(container: &Value, spec: &ExecSpec) -> Value {
    let mut process = container.clone();
    if let Some(fields) = process.as_object_mut() {
        fields.insert("args".to_owned(), json!(spec.command));
        fields.insert("terminal".to_owned(), json!(spec.terminal));
        fields.remove("commandLine");
        fields.remove("consoleSize");
        let (width, height) = spec.size;
        if spec.terminal && width > 0 && height > 0 {
            fields.insert("consoleSize".to_owned(), json!({ "width": width, "height": height }));
        }
        if spec.terminal {
            add_term(fields);
        }
    }
    process
}

fn add_term(fields: &mut serde_json::Map<String, Value>) {
    let Some(env) = fields.entry("env").or_insert_with(|| json!([])).as_array_mut() else { return };
    if !env.iter().any(|entry| entry.as_str().is_some_and(|text| text.starts_with("TERM="))) {
        env.push(json!("TERM=xterm"));
    }
}

/// The cgroup of an exec'd process and of all that it starts, below the container's. Dropped while it is in use, it is emptied
/// by killing what is there.
struct ProcessTree {
    container: PathBuf,
    own: PathBuf,
    /// As the OCI runtime takes it.
    sub_cgroup: Option<String>,
    released: bool,
}

impl ProcessTree {
    fn make(container: Option<(&str, &Path)>, number: u64) -> Result<Self, PodError> {
        let Some((controller, container)) = container else {
            return Err(PodError::Io { action: "find the container's cgroup", source: std::io::ErrorKind::NotFound.into() });
        };
        let name = format!("exec-{number}");
        let own = container.join(&name);
        fs::create_dir(&own).map_err(PodError::io("make a cgroup for the process"))?;
        let sub_cgroup = if controller.is_empty() { name } else { format!("{controller}:{name}") };
        Ok(Self { container: container.to_owned(), own, sub_cgroup: Some(sub_cgroup), released: false })
    }

    /// What is in the background goes on in the container's own cgroup.
    fn release(mut self) {
        self.released = true;
        for _ in 0..RELEASE_ROUNDS {
            let pids = procs::pids(&self.own);
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                // One that has ended meanwhile cannot move and need not.
                let _ = procs::join(&self.container, pid);
            }
        }
        remove(&self.own);
    }

    async fn kill(mut self) {
        self.released = true;
        kill_and_remove(self.own.clone()).await;
    }
}

impl Drop for ProcessTree {
    fn drop(&mut self) {
        if !self.released {
            tokio::spawn(kill_and_remove(self.own.clone()));
        }
    }
}

async fn kill_and_remove(cgroup: PathBuf) {
    if !procs::kill_all(&cgroup).await {
        tracing::error!(cgroup = %cgroup.display(), "exec'd processes could not be killed");
    }
    remove(&cgroup);
}

fn remove(cgroup: &Path) {
    if let Err(error) = procs::remove_tree(cgroup) {
        tracing::warn!(%error, "an exec's cgroup stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_process_with_another_command() {
        let container = json!({
            "args": ["init"], "terminal": true, "cwd": "/w", "env": ["A=b"], "user": { "uid": 7, "gid": 8 },
            "capabilities": { "bounding": ["CAP_KILL"] }, "consoleSize": { "width": 1, "height": 1 },
        });
        let spec = ExecSpec { command: vec!["sh".into(), "-c".into()], terminal: false, stdin: false, size: (80, 24) };
        let process = process_json(&container, &spec);
        assert_eq!(
            process,
            json!({
                "args": ["sh", "-c"], "terminal": false, "cwd": "/w", "env": ["A=b"], "user": { "uid": 7, "gid": 8 },
                "capabilities": { "bounding": ["CAP_KILL"] },
            })
        );
        let with_terminal = process_json(&container, &ExecSpec { terminal: true, ..spec });
        assert_eq!(with_terminal["env"], json!(["A=b", "TERM=xterm"]));
        assert_eq!(with_terminal["consoleSize"], json!({ "width": 80, "height": 24 }));
    }
}
