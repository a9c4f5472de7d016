//! From the command line to a served socket: what the long-lived ways to start have in common.
//!
//! ```text
//!  DIR/auraed.lock   held for the process's life: one auraed a directory
//!  DIR/auraed.sock   the services, mode 0600
//!  DIR/auraed.pid    our process id
//!  standard output   `ready` and a newline once the socket listens; closed then
//! ```

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::log;
use crate::rpc::{self, Serve};
use crate::sys::process;

/// How long open calls may take to end after the shutdown.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// Lower than anything of the pod, so that the kernel kills its workload first. Not allowed everywhere.
const OOM_SCORE_ADJ: &str = "-998";

/// What every supervisor is told on its command line.
pub struct Options {
    pub dir: PathBuf,
    pub log_level: tracing::Level,
    /// Values of the flags that only this way to start knows, by flag.
    own: Vec<(String, OsString)>,
}

impl Options {
    /// Reads the arguments after the way's name. `known`: flags with a value, besides `--dir` and `--log-level`.
    pub fn parse(args: Vec<OsString>, known: &[&str]) -> Result<Self, String> {
        let mut options = Self { dir: PathBuf::new(), log_level: tracing::Level::INFO, own: Vec::new() };
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            let name = flag.to_string_lossy().into_owned();
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--dir" => options.dir = value.into(),
                "--log-level" => {
                    options.log_level = value.to_string_lossy().parse().map_err(|_| format!("--log-level {value:?} is unknown"))?
                }
                _ if known.contains(&name.as_str()) => options.own.push((name, value)),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        if !options.dir.is_absolute() {
            return Err("--dir must name an absolute path".to_owned());
        }
        Ok(options)
    }

    /// The last value given for a flag of the way's own.
    pub fn own(&self, flag: &str) -> Option<&OsString> {
        self.own.iter().rev().find(|(name, _)| name == flag).map(|(_, value)| value)
    }
}

/// What a supervisor serves, and when it is done.
pub struct Served<S> {
    pub services: S,
    /// Told, or its sender dropped, when the supervisor has shut down.
    pub shut_down: oneshot::Receiver<()>,
}

/// Parses, prepares the process and serves what `build` makes, which runs inside the runtime.
pub fn main<S, B, F>(way: &str, usage: &str, args: Result<Options, String>, build: B) -> ExitCode
where
    S: Serve,
    B: FnOnce(Options) -> F,
    F: Future<Output = io::Result<Served<S>>>,
{
    let options = match args {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("auraed {way}: {problem}\nusage: auraed {way} {usage}");
            return ExitCode::from(2);
        }
    };
    log::install(options.log_level);
    match run(options, build) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "auraed {way} failed");
            ExitCode::FAILURE
        }
    }
}

/// An error that says what it was about.
pub fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

/// Everything a single thread must do comes before the runtime.
fn run<S: Serve, F: Future<Output = io::Result<Served<S>>>>(options: Options, build: impl FnOnce(Options) -> F) -> io::Result<()> {
    process::restore_signals()?;
    process::ignore_sigpipe()?;
    process::become_supervisor()?;
    std::env::set_current_dir("/")?;
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::debug!(%error, "the OOM score stays as it is");
    }
    let dir = options.dir.clone();
    named("--dir", DirBuilder::new().recursive(true).mode(0o700).create(&dir))?;
    named("--dir", fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)))?;
    let _lock = lock(&dir)?;
    let runtime = runtime()?;
    let result = runtime.block_on(serve(&dir, async {
        outlive_signals()?;
        build(options).await
    }));
    // Nothing more is waited for: blocking work of a pod that has shut down is of no use to anybody.
    runtime.shutdown_background();
    result
}

/// One thread, and others that end soon after what blocked them.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_millis(100))
        .thread_stack_size(512 * 1024)
        .build()
}

fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let path = dir.join("auraed.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| io::Error::new(io::ErrorKind::AddrInUse, format!("another auraed serves {}: {error}", dir.display())))
}

async fn serve<S: Serve>(dir: &Path, build: impl Future<Output = io::Result<Served<S>>>) -> io::Result<()> {
    let Served { services, shut_down } = build.await?;
    let listener = named("auraed.sock", listen(dir, "auraed.sock"))?;
    write_file(&dir.join("auraed.pid"), &std::process::id().to_string())?;
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(rpc::serve(listener, services, async {
        let _ = stopped.await;
    }));
    tracing::info!(version = crate::VERSION, "serving");
    announce_ready();
    // Without a sender the supervisor's task is gone, and so is what we are for.
    let _ = shut_down.await;
    let _ = stop.send(());
    if tokio::time::timeout(GOODBYE_LIMIT, serving).await.is_err() {
        tracing::debug!("a client kept its connection");
    }
    for name in ["auraed.sock", "auraed.pid"] {
        let _ = fs::remove_file(dir.join(name));
    }
    tracing::info!("the pod has shut down");
    Ok(())
}

/// A handler each, not ignored: what is ignored is so in every child too. It ends by Shutdown, or is killed.
fn outlive_signals() -> io::Result<()> {
    for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// A socket address holds 108 bytes: the directory is reached through a descriptor, however long its path is.
pub fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let socket = dir.join(name);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let handle = File::open(dir)?;
    let address = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
    let listener = UnixListener::bind(address)?;
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    fs::write(&draft, text)?;
    fs::rename(draft, path)
}

/// Whoever started us waits for this line; it may be gone by now.
fn announce_ready() {
    let _ = io::stdout().write_all(b"ready\n").and_then(|()| io::stdout().flush());
    if let Err(error) = process::close_stdout() {
        tracing::warn!(%error, "standard output stays open");
    }
}
