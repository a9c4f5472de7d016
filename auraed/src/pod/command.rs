//! `auraed pod`: from the command line to a served socket.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
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

use super::Pod;
use super::children::Children;
use super::oci::OciRuntime;
use super::supervisor::Supervisor;
use crate::cgroup::Hierarchies;
use crate::io::log_sink::Logs;
use crate::rpc;
use crate::sys::{process, seal};

/// How long open calls may take to end when the pod has shut down.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// Lower than anything of the pod, so that the kernel kills its workload first. Not allowed everywhere.
const OOM_SCORE_ADJ: &str = "-998";

const USAGE: &str = "auraed pod --dir DIR [--oci-runtime PATH] [--log-level error|warn|info|debug]";

struct Options {
    dir: PathBuf,
    oci_runtime: Option<PathBuf>,
    log_level: tracing::Level,
}

/// Runs `auraed pod` with the arguments after its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let options = match parse(args) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("auraed pod: {problem}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    super::log::install(options.log_level);
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "auraed pod failed");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Options, String> {
    let mut options = Options { dir: PathBuf::new(), oci_runtime: None, log_level: tracing::Level::INFO };
    let mut args = args.into_iter();
    while let Some(flag) = args.next() {
        let name = flag.to_string_lossy().into_owned();
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--dir" => options.dir = value.into(),
            "--oci-runtime" => options.oci_runtime = Some(value.into()),
            "--log-level" => {
                options.log_level = value.to_string_lossy().parse().map_err(|_| format!("--log-level {value:?} is unknown"))?
            }
            _ => return Err(format!("unknown option {name}")),
        }
    }
    if !options.dir.is_absolute() {
        return Err("--dir must name an absolute path".to_owned());
    }
    Ok(options)
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

/// Everything a single thread must do comes before the runtime.
fn run(options: &Options) -> io::Result<()> {
    process::restore_signals()?;
    process::ignore_sigpipe()?;
    process::become_supervisor()?;
    std::env::set_current_dir("/")?;
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::debug!(%error, "the OOM score stays as it is");
    }
    named("--dir", DirBuilder::new().recursive(true).mode(0o700).create(&options.dir))?;
    named("--dir", fs::set_permissions(&options.dir, PermissionsExt::from_mode(0o700)))?;
    let _lock = lock(&options.dir)?;
    let runtime = runtime()?;
    let result = runtime.block_on(serve(options));
    // Nothing more is waited for: blocking work of a pod that has shut down is of no use to anybody.
    runtime.shutdown_background();
    result
}

/// One thread, and others that end soon after what blocked them.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
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

async fn serve(options: &Options) -> io::Result<()> {
    outlive_signals()?;
    let children = Children::start()?;
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    // Once for all: `auraed oci` would otherwise copy itself in every call.
    let protected = named("protect our binary", seal::sealed_copy())?;
    let binary = PathBuf::from(format!("/proc/self/fd/{}", protected.as_raw_fd()));
    let oci = named("OCI runtime", OciRuntime::open(&options.dir, &binary, options.oci_runtime.as_deref(), children.clone()))?;
    let pod = Pod::open(&options.dir, children, hierarchies, oci, Logs::Files)?;
    let (finished, shut_down) = oneshot::channel();
    let supervisor = Supervisor::start(pod.clone(), binary, finished);
    let socket = options.dir.join("auraed.sock");
    let listener = named("auraed.sock", listen(&options.dir, &socket))?;
    write_file(&options.dir.join("auraed.pid"), &std::process::id().to_string())?;
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(rpc::serve(listener, pod, supervisor, async {
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
        let _ = fs::remove_file(options.dir.join(name));
    }
    tracing::info!("the pod has shut down");
    Ok(())
}

/// A handler each, not ignored: what is ignored is so in every container too. It ends by Shutdown, or is killed.
fn outlive_signals() -> io::Result<()> {
    for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// A socket address holds 108 bytes: the directory is reached through a descriptor, however long its path is.
fn listen(dir: &Path, socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let handle = File::open(dir)?;
    let address = format!("/proc/self/fd/{}/auraed.sock", handle.as_raw_fd());
    let listener = UnixListener::bind(address)?;
    fs::set_permissions(socket, PermissionsExt::from_mode(0o600))?;
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
