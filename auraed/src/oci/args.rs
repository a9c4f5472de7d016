//! The command line. Written by hand: it is small, frozen by other runtimes, and every call of it pays for its start.

use std::ffi::OsString;
use std::path::PathBuf;

use super::OciError;

/// Where container state is kept unless `--root` says otherwise.
pub const DEFAULT_ROOT: &str = "/run/aurae/oci";

/// One call of `auraed oci`.
#[derive(Debug, PartialEq)]
pub struct Invocation {
    pub root: PathBuf,
    pub log: Option<PathBuf>,
    pub debug: bool,
    /// The caller says cgroup paths are systemd's; a path of that form says so too.
    pub systemd_cgroup: bool,
    pub command: Command,
}

/// Files and sockets handed to a process that is made.
#[derive(Debug, Default, PartialEq)]
pub struct ProcessIo {
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    /// Cgroups below the container's, `[CONTROLLER:]PATH` each, that an exec'd process is put into before it runs.
    pub sub_cgroups: Vec<String>,
    /// Descriptors from 3 on that the process inherits.
    pub preserve_fds: i32,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    Create { id: String, bundle: PathBuf, io: ProcessIo },
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool },
    Exec { id: String, process: PathBuf, detach: bool, io: ProcessIo },
    Update { id: String, resources: PathBuf },
    Features,
    Version,
}

/// A cursor over arguments that knows `--flag value` and `--flag=value`.
struct Cursor {
    rest: std::vec::IntoIter<String>,
    flag: String,
    attached: Option<String>,
}

enum Word {
    Flag,
    Plain(String),
    End,
}

impl Cursor {
    fn next(&mut self) -> Result<Word, OciError> {
        if self.attached.take().is_some() {
            return Err(OciError::Usage(format!("{} takes no value", self.flag)));
        }
        let Some(word) = self.rest.next() else { return Ok(Word::End) };
        if !word.starts_with('-') || word == "-" {
            return Ok(Word::Plain(word));
        }
        match word.split_once('=') {
            Some((flag, value)) => {
                self.flag = flag.to_owned();
                self.attached = Some(value.to_owned());
            }
            None => self.flag = word,
        }
        Ok(Word::Flag)
    }

    fn value(&mut self) -> Result<String, OciError> {
        match self.attached.take().or_else(|| self.rest.next()) {
            Some(value) => Ok(value),
            None => Err(OciError::Usage(format!("{} needs a value", self.flag))),
        }
    }

    fn unknown(&self) -> OciError {
        OciError::Usage(format!("unknown flag {}", self.flag))
    }
}

/// Reads the arguments after `oci`.
pub fn parse(args: Vec<OsString>) -> Result<Invocation, OciError> {
    let words = args
        .into_iter()
        .map(|arg| arg.into_string().map_err(|arg| OciError::Usage(format!("argument {arg:?} is not UTF-8"))))
        .collect::<Result<Vec<_>, _>>()?;
    let mut cursor = Cursor { rest: words.into_iter(), flag: String::new(), attached: None };
    let mut invocation =
        Invocation { root: DEFAULT_ROOT.into(), log: None, debug: false, systemd_cgroup: false, command: Command::Version };
    loop {
        match cursor.next()? {
            Word::End => {
                return Err(OciError::Usage("name an operation: create, start, state, kill, delete, exec, update, features".into()));
            }
            Word::Plain(name) => {
                invocation.command = command(&name, &mut cursor)?;
                return Ok(invocation);
            }
            Word::Flag => match cursor.flag.as_str() {
                "--root" => invocation.root = cursor.value()?.into(),
                "--log" => invocation.log = Some(cursor.value()?.into()),
                "--log-format" => {
                    let format = cursor.value()?;
                    if format != "json" && format != "text" {
                        return Err(OciError::Usage(format!("--log-format {format}: json is the only format written")));
                    }
                }
                "--debug" => invocation.debug = true,
                "--systemd-cgroup" => invocation.systemd_cgroup = true,
                "--rootless" => drop(cursor.value()?),
                "--version" | "-v" => return Ok(invocation),
                _ => return Err(cursor.unknown()),
            },
        }
    }
}

/// Everything an operation may be given; each takes what it knows.
#[derive(Default)]
struct Given {
    words: Vec<String>,
    bundle: Option<PathBuf>,
    process: Option<PathBuf>,
    resources: Option<PathBuf>,
    all: bool,
    force: bool,
    detach: bool,
    io: ProcessIo,
}

fn command(name: &str, cursor: &mut Cursor) -> Result<Command, OciError> {
    let mut given = Given::default();
    loop {
        match cursor.next()? {
            Word::End => break,
            Word::Plain(word) => given.words.push(word),
            Word::Flag => flag(name, cursor, &mut given)?,
        }
    }
    let wanted = match name {
        "kill" => 1..=2,
        "features" => 0..=0,
        _ => 1..=1,
    };
    if !wanted.contains(&given.words.len()) {
        return Err(OciError::Usage(format!("{name}: {} arguments given, wanted {wanted:?}", given.words.len())));
    }
    let mut words = given.words.into_iter();
    let id = words.next().unwrap_or_default();
    if name != "features" {
        check_id(&id)?;
    }
    Ok(match name {
        "create" => Command::Create { id, bundle: given.bundle.unwrap_or_else(|| ".".into()), io: given.io },
        "start" => Command::Start { id },
        "state" => Command::State { id },
        "kill" => Command::Kill { id, signal: words.next().unwrap_or_else(|| "SIGTERM".into()), all: given.all },
        "delete" => Command::Delete { id, force: given.force },
        "exec" => {
            let process = given.process.ok_or_else(|| OciError::Usage("exec: --process is required".into()))?;
            Command::Exec { id, process, detach: given.detach, io: given.io }
        }
        "update" => {
            let resources = given.resources.ok_or_else(|| OciError::Usage("update: --resources is required".into()))?;
            Command::Update { id, resources }
        }
        "features" => Command::Features,
        _ => return Err(OciError::Usage(format!("unknown operation {name:?}"))),
    })
}

fn flag(operation: &str, cursor: &mut Cursor, given: &mut Given) -> Result<(), OciError> {
    let flag = cursor.flag.clone();
    match (operation, flag.as_str()) {
        ("create", "--bundle" | "-b") => given.bundle = Some(cursor.value()?.into()),
        // Kernel keyrings are never made, so there is nothing to leave out.
        ("create", "--no-new-keyring") => {}
        ("create" | "exec", "--pid-file") => given.io.pid_file = Some(cursor.value()?.into()),
        ("create" | "exec", "--console-socket") => given.io.console_socket = Some(cursor.value()?.into()),
        ("create" | "exec", "--preserve-fds") => {
            let value = cursor.value()?;
            given.io.preserve_fds = match value.parse() {
                Ok(count) if (0..=1024).contains(&count) => count,
                _ => return Err(OciError::Usage(format!("--preserve-fds {value}: not a count of descriptors"))),
            };
        }
        ("exec", "--cgroup") => given.io.sub_cgroups.push(cursor.value()?),
        ("exec", "--process" | "-p") => given.process = Some(cursor.value()?.into()),
        ("exec", "--detach" | "-d") => given.detach = true,
        ("kill", "--all" | "-a") => given.all = true,
        ("delete", "--force" | "-f") => given.force = true,
        ("update", "--resources" | "-r") => given.resources = Some(cursor.value()?.into()),
        _ => return Err(cursor.unknown()),
    }
    Ok(())
}

/// An id becomes a directory name below `--root`.
fn check_id(id: &str) -> Result<(), OciError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > 255 || id == "." || id == ".." || !id.chars().all(plain) {
        return Err(OciError::Usage(format!("container id {id:?}: letters, digits, '_', '+', '-' and '.' only")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, OciError> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    fn command_of(line: &str) -> Command {
        parsed(line).map(|invocation| invocation.command).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn takes_what_runc_takes() {
        let invocation = parsed("--root /r --log=/l --log-format json create --bundle /b --pid-file /p --console-socket /c ID");
        let io = ProcessIo { pid_file: Some("/p".into()), console_socket: Some("/c".into()), ..Default::default() };
        assert_eq!(
            invocation.ok(),
            Some(Invocation {
                root: "/r".into(),
                log: Some("/l".into()),
                debug: false,
                systemd_cgroup: false,
                command: Command::Create { id: "ID".into(), bundle: "/b".into(), io },
            })
        );
        assert_eq!(command_of("kill --all ID 9"), Command::Kill { id: "ID".into(), signal: "9".into(), all: true });
        assert_eq!(command_of("kill ID"), Command::Kill { id: "ID".into(), signal: "SIGTERM".into(), all: false });
        assert_eq!(command_of("delete ID --force"), Command::Delete { id: "ID".into(), force: true });
        assert_eq!(command_of("--version"), Command::Version);
        assert_eq!(command_of("features"), Command::Features);
        assert_eq!(
            command_of("exec -d --process /x ID"),
            Command::Exec { id: "ID".into(), process: "/x".into(), detach: true, io: ProcessIo::default() }
        );
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for line in [
            "",
            "create",
            "create a b",
            "create ../x",
            "create ..",
            "start --force x",
            "exec ID",
            "update ID",
            "frob ID",
            "--log-format yaml state x",
            "kill --all=1 ID 9",
            "--root",
            "create --preserve-fds -1 x",
        ] {
            assert!(parsed(line).is_err(), "{line:?} was taken");
        }
    }
}
