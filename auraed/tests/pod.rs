//! `auraed pod` against the kernel: sandboxes, the life of containers, output, exec, events, shutdown.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use api::stream_input::Input;
use api::stream_output::Output;
use auraed::api::pod::v0::{self as api};
use auraed::api::supervisor::v0::{self as supervisor};
use harness::{AURAED, ORDINARY, TestPod};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

#[tokio::test]
async fn a_container_lives_from_prepare_to_delete() {
    let mut pod = TestPod::new().await;
    let hello = pod.pod.hello(api::HelloRequest::default()).await.unwrap().into_inner();
    assert_eq!(hello.contract_version, 1);
    let pid = pod.create("c", &["/bin/sh", "-c", "echo out; echo err >&2; hostname; exit 3"]).await;
    assert!(pid > 0);
    assert_eq!(pod.container("c").await.unwrap().state(), api::ContainerState::Created);
    pod.start("c").await;
    let exit = pod.exit("c").await;
    assert_eq!((exit.code, exit.oom_killed), (3, false));
    let started_at_ns = pod.container("c").await.unwrap().started_at_ns;
    assert!(started_at_ns > 0 && exit.finished_at_ns >= started_at_ns, "{started_at_ns} {exit:?}");
    let mut records = pod.records("c");
    records.sort();
    let record = |stream: &str, payload: &str| (stream.to_owned(), "F".to_owned(), payload.to_owned());
    assert_eq!(records, [record("stderr", "err"), record("stdout", "a-pod"), record("stdout", "out")]);
    assert_eq!(fs::metadata(pod.log_path("c")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::read_to_string(pod.path("exits/c.json")).unwrap().contains("\"code\":3"));
    // Deleting twice is success, and the id is free again.
    pod.delete("c").await;
    pod.delete("c").await;
    assert!(pod.container("c").await.is_none());
    assert!(!pod.path("bundles/c/config.json").exists());
    pod.create("c", &["/bin/true"]).await;
    assert_eq!(pod.end().await[0].exit_code, 137);
}

#[tokio::test]
async fn signals_and_their_exit_codes() {
    let mut pod = TestPod::new().await;
    pod.run("term", "trap 'exit 9' TERM; while true; do sleep 0.1; done").await;
    pod.run("kill", "sleep 1000").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    pod.signal("term", 15).await;
    pod.signal("kill", 9).await;
    assert_eq!(pod.exit("term").await.code, 9);
    assert_eq!(pod.exit("kill").await.code, 137);
    // To one that has exited: success.
    pod.signal("kill", 9).await;
    let unknown = pod.pod.signal_container(api::SignalContainerRequest { container_id: "nobody".into(), signal: 9, all: false }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    pod.end().await;
}

#[tokio::test]
async fn requests_in_the_wrong_phase_are_refused() {
    let mut pod = TestPod::new().await;
    pod.create("c", &["/bin/sleep", "1000"]).await;
    let again = pod.create_with("c", &["/bin/true"], |_, _| {}).await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    let early = pod.exec("c", "true", 0).await;
    assert_eq!(early.unwrap_err().code(), Code::FailedPrecondition);
    let reopen = pod.pod.reopen_log(api::ReopenLogRequest { container_id: "c".into() }).await;
    assert_eq!(reopen.unwrap_err().code(), Code::FailedPrecondition);
    pod.start("c").await;
    let twice = pod.pod.start_container(api::StartContainerRequest { container_id: "c".into() }).await;
    assert_eq!(twice.unwrap_err().code(), Code::FailedPrecondition);
    let exits = pod.end().await;
    assert_eq!((exits.len(), exits[0].exit_code), (1, 137));
}

#[tokio::test]
async fn a_failed_create_says_why_and_can_be_tried_again() {
    let mut pod = TestPod::new().await;
    let refused = pod.create_with("c", &["/no/such/program"], |_, _| {}).await.unwrap_err();
    assert!(refused.message().contains("/no/such/program"), "{refused}");
    pod.create("c", &["/bin/true"]).await;
    pod.start("c").await;
    assert_eq!(pod.exit("c").await.code, 0);
    pod.end().await;
}

#[tokio::test]
async fn long_lines_are_cut_and_all_output_is_there_before_the_exit() {
    let mut pod = TestPod::new().await;
    pod.run("c", "seq 1 20000; dd if=/dev/zero bs=50000 count=1 2>/dev/null | tr '\\0' x; echo; echo -n tail").await;
    pod.exit("c").await;
    let records = pod.records("c");
    assert_eq!(records.len(), 20000 + 4 + 1);
    assert!(records[..20000].iter().enumerate().all(|(index, (_, tag, payload))| tag == "F" && *payload == (index + 1).to_string()));
    let cut: Vec<(&str, usize)> = records[20000..].iter().map(|(_, tag, payload)| (tag.as_str(), payload.len())).collect();
    assert_eq!(cut, [("P", 16384), ("P", 16384), ("P", 16384), ("F", 50000 - 3 * 16384), ("P", 4)]);
    pod.end().await;
}

#[tokio::test]
async fn a_log_that_is_rotated_loses_and_repeats_nothing() {
    let mut pod = TestPod::new().await;
    pod.run("c", "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done").await;
    let mut parts = Vec::new();
    for turn in 0..5 {
        let rotated = pod.path(&format!("rotated-{turn}"));
        fs::rename(pod.log_path("c"), &rotated).unwrap();
        match pod.pod.reopen_log(api::ReopenLogRequest { container_id: "c".into() }).await {
            Ok(_) => {}
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition),
        }
        parts.push(rotated);
        if !pod.log_path("c").exists() {
            break;
        }
    }
    pod.exit("c").await;
    parts.push(pod.log_path("c"));
    let all: Vec<u8> = parts.iter().filter(|path| path.exists()).flat_map(|path| fs::read(path).unwrap()).collect();
    let lines: Vec<String> = harness::parse_records(&all).into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(lines, (0..3000).map(|number| number.to_string()).collect::<Vec<_>>());
    pod.end().await;
}

#[tokio::test]
async fn a_terminal_is_one_stream() {
    let mut pod = TestPod::new().await;
    let script = ["/bin/sh", "-c", "tty; echo err >&2"];
    pod.create_with("c", &script, |spec, io| {
        spec["process"]["terminal"] = true.into();
        io.terminal = true;
    })
    .await
    .unwrap();
    pod.start("c").await;
    assert_eq!(pod.exit("c").await.code, 0);
    let records = pod.records("c");
    assert_eq!(
        records.iter().map(|(stream, _, payload)| (stream.as_str(), payload.trim_end())).collect::<Vec<_>>(),
        [("stdout", "/dev/pts/0"), ("stdout", "err")]
    );
    pod.end().await;
}

#[tokio::test]
async fn the_oom_killer_is_noticed() {
    let mut pod = TestPod::new().await;
    let eat = ["/bin/sh", "-c", "tail -c 200000000 /dev/zero"];
    pod.create_with("c", &eat, |spec, _| {
        spec["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 15 << 20, "swap": 15 << 20 } })
    })
    .await
    .unwrap();
    pod.start("c").await;
    let exit = pod.exit("c").await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    pod.end().await;
}

#[tokio::test]
async fn exec_sync_keeps_streams_apart_and_environment() {
    let mut pod = TestPod::new().await;
    pod.run("c", "sleep 1000").await;
    let output = pod.exec("c", "echo out $FLAVOUR; echo err >&2; exit 7", 0).await.unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..], output.exit_code), (&b"out plain\n"[..], &b"err\n"[..], 7));
    let killed = pod.exec("c", "kill -9 $$", 0).await.unwrap();
    assert_eq!(killed.exit_code, 137);
    // Stdin is /dev/null, so this ends.
    assert_eq!(pod.exec("c", "cat", 5000).await.unwrap().exit_code, 0);
    let missing = api::ExecSyncRequest { container_id: "c".into(), command: vec!["/no/such".into()], ..Default::default() };
    assert!(pod.pod.exec_sync(missing).await.unwrap_err().message().contains("/no/such"));
    let much = pod.exec("c", "yes 2>/dev/null | head -c 3000000; echo done >&2", 0).await.unwrap();
    assert_eq!((much.stdout.len(), &much.stderr[..]), (1 << 20, &b"done\n"[..]));
    pod.end().await;
}

#[tokio::test]
async fn exec_sync_does_not_wait_for_background_children() {
    let mut pod = TestPod::new().await;
    pod.run("c", "sleep 1000").await;
    let begin = Instant::now();
    let output = pod.exec("c", "echo now; sleep 777 & exit 0", 0).await.unwrap();
    assert_eq!(&output.stdout[..], b"now\n");
    assert!(begin.elapsed() < Duration::from_secs(3));
    // It goes on in the container.
    assert_eq!(pod.exec("c", "ps | grep -c '[s]leep 777'", 0).await.unwrap().stdout, &b"1\n"[..]);
    pod.end().await;
}

#[tokio::test]
async fn a_timeout_kills_the_whole_tree() {
    let mut pod = TestPod::new().await;
    let pid = pod.run("c", "sleep 1000").await;
    let begin = Instant::now();
    let late = pod.exec("c", "setsid sleep 888 & (setsid sh -c 'sleep 888 & sleep 888' &) ; sleep 888", 500).await;
    assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(begin.elapsed() < Duration::from_secs(5));
    let left = pod.exec("c", "ps | grep -c '[s]leep 888'", 0).await.unwrap();
    assert_eq!(&left.stdout[..], b"0\n");
    // The container itself goes on.
    assert_eq!(pod.container("c").await.unwrap().pid, pid);
    pod.end().await;
}

#[tokio::test]
async fn events_are_replayed_until_acknowledged() {
    let mut pod = TestPod::new().await;
    pod.run("c", "true").await;
    pod.exit("c").await;
    pod.delete("c").await;
    let mut events = pod.pod.events(api::EventsRequest { after: 1 }).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = events.message().await.unwrap().unwrap();
        seen.push((event.number, event.kind()));
    }
    assert_eq!(seen, [(2, api::EventKind::Started), (3, api::EventKind::Exited), (4, api::EventKind::Deleted)]);
    pod.pod.acknowledge_events(api::AcknowledgeEventsRequest { through: 3 }).await.unwrap();
    let mut rest = pod.pod.events(api::EventsRequest { after: 0 }).await.unwrap().into_inner();
    assert_eq!(rest.message().await.unwrap().unwrap().number, 4);
    pod.create("d", &["/bin/true"]).await;
    assert_eq!(rest.message().await.unwrap().unwrap().number, 5);
    let list = pod.pod.list_containers(api::ListContainersRequest {}).await.unwrap().into_inner();
    assert_eq!((list.last_event, list.containers.len()), (5, 1));
    pod.end().await;
    // The end of the pod ends the stream.
    while rest.message().await.is_ok_and(|event| event.is_some()) {}
}

#[tokio::test]
async fn sandboxes_are_made_once() {
    let mut pod = TestPod::with(ORDINARY, |request| {
        request.sysctls = [("net.ipv4.ip_unprivileged_port_start", "0"), ("kernel.shm_rmid_forced", "1")]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
    })
    .await;
    let again = pod.supervisor.create_sandbox(pod.sandbox_request()).await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(fs::metadata(pod.path("shm")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_ne!(fs::metadata(pod.path("ns/net")).unwrap().ino(), fs::metadata("/proc/self/ns/net").unwrap().ino());
    pod.run("c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; ifconfig lo | grep -c 'UP LOOPBACK'")
        .await;
    pod.exit("c").await;
    let lines: Vec<String> = pod.records("c").into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(lines, ["0", "1", "1"]);
    pod.end().await;
}

#[tokio::test]
async fn a_refused_sandbox_leaves_nothing() {
    let mut pod = TestPod::bare(ORDINARY).await;
    for (key, value) in [("kernel.core_pattern", "x"), ("net/../kernel/core_pattern", "x"), ("net.ipv4.ip_forward", "1\n")] {
        let mut request = pod.sandbox_request();
        request.sysctls.insert(key.into(), value.into());
        assert_eq!(pod.supervisor.create_sandbox(request).await.unwrap_err().code(), Code::InvalidArgument, "{key}");
    }
    let mut request = pod.sandbox_request();
    request.sysctls.insert("net.ipv4.no_such_setting".into(), "1".into());
    let refused = pod.supervisor.create_sandbox(request).await.unwrap_err();
    assert!(refused.message().contains("no_such_setting"), "{refused}");
    assert_eq!(harness::mounts_below(pod.dir.path()), Vec::<String>::new());
    assert!(harness::cgroups_named(&pod.name).is_empty());
    pod.made = pod.supervisor.create_sandbox(pod.sandbox_request()).await.unwrap().into_inner();
    pod.run("c", "true").await;
    assert_eq!(pod.exit("c").await.code, 0);
    pod.end().await;
}

#[tokio::test]
async fn a_shared_pid_namespace_has_a_reaping_pid_one() {
    let mut pod = TestPod::with(supervisor::Namespaces { pid: true, ..ORDINARY }, |_| {}).await;
    let pid_one = pod.made.reaper_pid;
    assert!(pid_one > 0);
    pod.run("a", "sleep 1000").await;
    pod.run("b", "sleep 999 & exec sleep 1000").await;
    let seen = pod.exec("a", "(sleep 0.1 &) ; sleep 0.5; ps -o comm | grep -c '^sleep'; ls /proc/1/root/ 2>&1 | wc -l", 0).await.unwrap();
    // Those of both containers, none a zombie.
    assert_eq!(String::from_utf8_lossy(&seen.stdout).lines().next(), Some("3"), "{seen:?}");
    // The empty root: nobody can reach the host through pid 1.
    assert_eq!(fs::read_dir(format!("/proc/{pid_one}/root")).unwrap().count(), 0);
    let leaf = fs::read_to_string(format!("/proc/{pid_one}/cgroup")).unwrap();
    assert!(leaf.contains(&format!("memory:/{}/auraed", pod.name)) || leaf.contains(&format!("0::/{}/auraed", pod.name)), "{leaf}");
    // What shares the namespace does not outlive its container.
    pod.signal("b", 9).await;
    assert_eq!(pod.exit("b").await.code, 137);
    let left = pod.exec("a", "ps | grep -c '[s]leep 999'", 0).await.unwrap();
    assert_eq!(&left.stdout[..], b"0\n");
    pod.end().await;
    assert!(!fs::exists(format!("/proc/{pid_one}")).unwrap());
}

#[tokio::test]
async fn one_auraed_for_a_directory() {
    let pod = TestPod::new().await;
    let second = std::process::Command::new(AURAED).arg("pod").arg("--dir").arg(pod.dir.path()).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another auraed serves"), "{second:?}");
    assert_eq!(fs::metadata(pod.path("auraed.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(pod.path("auraed.pid")).unwrap(), pod.process.id().to_string());
    // Its reaper and `auraed oci` run from a file that cannot be written to, found by its name among the descriptors.
    let descriptors = fs::read_dir(format!("/proc/{}/fd", pod.process.id())).unwrap().flatten();
    let protected =
        descriptors.map(|entry| entry.path()).find(|path| fs::read_link(path).unwrap().to_string_lossy().starts_with("/memfd:auraed"));
    let written = fs::File::options().write(true).open(protected.unwrap()).and_then(|mut file| std::io::Write::write(&mut file, b"x"));
    assert!(written.is_err());
    pod.end().await;
}

fn exec_start(command: &[&str], terminal: bool, stdin: bool) -> api::StreamInput {
    let start = api::ExecStart {
        container_id: "c".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        terminal,
        stdin,
        stdout: true,
        stderr: !terminal,
        size: Some(api::TerminalSize { width: 91, height: 17 }),
    };
    input(Input::Start(start))
}

fn input(input: Input) -> api::StreamInput {
    api::StreamInput { input: Some(input) }
}

/// Everything a stream brings until it ends.
async fn collect(mut outputs: tonic::Streaming<api::StreamOutput>) -> (Vec<u8>, Vec<u8>, Option<i32>) {
    let (mut stdout, mut stderr, mut code) = (Vec::new(), Vec::new(), None);
    while let Some(message) = outputs.message().await.unwrap() {
        match message.output.unwrap() {
            Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            Output::ExitCode(exit) => code = Some(exit),
            Output::Started(_) => assert!(stdout.is_empty() && code.is_none()),
        }
    }
    (stdout, stderr, code)
}

#[tokio::test]
async fn exec_streams_both_ways() {
    let mut pod = TestPod::new().await;
    pod.run("c", "sleep 1000").await;
    let (sender, receiver) = mpsc::channel(64);
    sender.send(exec_start(&["/bin/sh", "-c", "cat; echo err >&2; exit 5"], false, true)).await.unwrap();
    let outputs = pod.pod.exec(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let reading = tokio::spawn(collect(outputs));
    let data = vec![b'z'; 32 * 1024];
    for _ in 0..64 {
        sender.send(input(Input::Stdin(data.clone().into()))).await.unwrap();
    }
    sender.send(input(Input::StdinClose(api::StdinClose {}))).await.unwrap();
    let (stdout, stderr, code) = reading.await.unwrap();
    assert_eq!((stdout.len(), &stderr[..], code), (64 * 32 * 1024, &b"err\n"[..], Some(5)));
    pod.end().await;
}

#[tokio::test]
async fn exec_on_a_terminal() {
    let mut pod = TestPod::new().await;
    pod.run("c", "sleep 1000").await;
    let (sender, receiver) = mpsc::channel(4);
    sender.send(exec_start(&["/bin/sh", "-c", "stty size; read line; stty size; echo got $line $TERM"], true, true)).await.unwrap();
    let mut outputs = pod.pod.exec(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut text = String::new();
    let mut fed = false;
    while let Some(message) = outputs.message().await.unwrap() {
        if let Some(Output::Stdout(bytes)) = message.output {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        if text.contains("17 91") && !fed {
            fed = true;
            sender.send(input(Input::Resize(api::TerminalSize { width: 60, height: 20 }))).await.unwrap();
            sender.send(input(Input::Stdin(b"word\n".to_vec().into()))).await.unwrap();
        }
    }
    assert!(text.contains("20 60") && text.contains("got word xterm"), "{text:?}");
    pod.end().await;
}

#[tokio::test]
async fn a_lost_client_hangs_its_terminal_up() {
    let mut pod = TestPod::new().await;
    pod.run("c", "sleep 1000").await;
    let (sender, receiver) = mpsc::channel(4);
    sender.send(exec_start(&["/bin/sh", "-c", "sleep 555"], true, true)).await.unwrap();
    let mut outputs = pod.pod.exec(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    outputs.message().await.unwrap();
    assert_eq!(pod.exec("c", "ps | grep -c '[s]leep 555'", 0).await.unwrap().exit_code, 0);
    drop((sender, outputs));
    let deadline = Instant::now() + Duration::from_secs(8);
    while pod.exec("c", "ps | grep -q '[s]leep 555'", 0).await.unwrap().exit_code == 0 {
        assert!(Instant::now() < deadline, "the process stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pod.end().await;
}

fn attach(stdin: bool) -> api::StreamInput {
    input(Input::Attach(api::AttachStart { container_id: "c".into(), stdin, stdout: true, stderr: true }))
}

#[tokio::test]
async fn attached_clients_share_the_streams() {
    let mut pod = TestPod::new().await;
    pod.create_with("c", &["/bin/sh", "-c", "cat; echo end >&2"], |_, io| (io.stdin, io.stdin_once) = (true, true)).await.unwrap();
    pod.start("c").await;
    let (sender, receiver) = mpsc::channel(4);
    let (watcher, watched) = mpsc::channel(4);
    watcher.send(attach(false)).await.unwrap();
    let watching = tokio::spawn(collect(pod.pod.attach(ReceiverStream::new(watched)).await.unwrap().into_inner()));
    sender.send(attach(true)).await.unwrap();
    let typing = tokio::spawn(collect(pod.pod.attach(ReceiverStream::new(receiver)).await.unwrap().into_inner()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    sender.send(input(Input::Stdin(b"hello\n".to_vec().into()))).await.unwrap();
    sender.send(input(Input::StdinClose(api::StdinClose {}))).await.unwrap();
    let seen = (b"hello\n".to_vec(), b"end\n".to_vec(), None);
    assert_eq!(typing.await.unwrap(), seen);
    assert_eq!(watching.await.unwrap(), seen);
    assert_eq!(pod.exit("c").await.code, 0);
    // The log has it all the same.
    assert_eq!(pod.records("c").len(), 2);
    pod.end().await;
}

#[tokio::test]
async fn a_slow_attached_client_is_let_go_and_stalls_nobody() {
    let mut pod = TestPod::new().await;
    pod.create_with("c", &["/bin/sh", "-c", "read go; yes 0123456789 | head -n 400000; exit 4"], |_, io| io.stdin = true).await.unwrap();
    pod.start("c").await;
    let (sender, receiver) = mpsc::channel(4);
    sender.send(attach(true)).await.unwrap();
    let mut outputs = pod.pod.attach(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    sender.send(input(Input::Stdin(b"go\n".to_vec().into()))).await.unwrap();
    // Nothing is read from the stream meanwhile.
    assert_eq!(pod.exit("c").await.code, 4);
    let mut end = None;
    while end.is_none() {
        match outputs.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended as if nothing was missing"),
            Err(status) => end = Some(status.code()),
        }
    }
    assert_eq!(end, Some(Code::ResourceExhausted));
    pod.end().await;
}

#[tokio::test]
async fn ports_are_forwarded_to_the_pods_loopback() {
    use api::port_forward_input::Input as In;
    use api::port_forward_output::Output as Out;
    let mut pod = TestPod::new().await;
    pod.run("c", "nc -l -p 8080 -e cat").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let message = |input| api::PortForwardInput { input: Some(input) };
    let (sender, receiver) = mpsc::channel(4);
    sender.send(message(In::Dial(api::Dial { port: 9 }))).await.unwrap();
    let refused = pod.pod.port_forward(ReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let (sender, receiver) = mpsc::channel(4);
    sender.send(message(In::Dial(api::Dial { port: 8080 }))).await.unwrap();
    let mut outputs = pod.pod.port_forward(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(matches!(outputs.message().await.unwrap().unwrap().output, Some(Out::Connected(_))));
    sender.send(message(In::Data(b"ping".to_vec().into()))).await.unwrap();
    sender.send(message(In::HalfClose(api::HalfClose {}))).await.unwrap();
    let (mut data, mut half_closed) = (Vec::new(), false);
    while let Some(message) = outputs.message().await.unwrap() {
        match message.output.unwrap() {
            Out::Data(bytes) => data.extend_from_slice(&bytes),
            Out::HalfClose(_) => half_closed = true,
            Out::Connected(_) => panic!("connected twice"),
        }
    }
    assert_eq!((&data[..], half_closed), (&b"ping"[..], true));
    pod.end().await;
}

#[tokio::test]
async fn stats_of_the_pod_and_its_containers() {
    let mut pod = TestPod::new().await;
    let script = "dd if=/dev/zero of=/file bs=1024 count=200 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000";
    pod.create_with("c", &["/bin/sh", "-c", script], |spec, _| {
        spec["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 64 << 20 } })
    })
    .await
    .unwrap();
    pod.start("c").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let plain = pod.pod.stats(api::StatsRequest::default()).await.unwrap().into_inner();
    assert!(plain.pod.unwrap().detail.is_none() && plain.containers[0].detail.is_none());
    let request = api::StatsRequest { detailed: true, ..Default::default() };
    let stats = pod.pod.stats(request).await.unwrap().into_inner();
    let (whole, container) = (stats.pod.unwrap(), &stats.containers[0]);
    assert_eq!(container.container_id, "c");
    assert!(container.cpu.as_ref().unwrap().usage_core_ns > 1_000_000);
    assert!(container.process_count >= 1);
    let memory = container.memory.as_ref().unwrap();
    assert!(memory.usage_bytes > 0 && memory.working_set_bytes <= memory.usage_bytes && memory.page_faults > 0);
    assert_eq!(memory.limit_bytes, 64 << 20);
    let layer = container.writable_layer.as_ref().unwrap();
    assert!(layer.used_bytes >= 200 << 10 && layer.inodes_used >= 2, "{layer:?}");
    assert!(layer.capacity_bytes > layer.used_bytes && layer.inodes_total >= layer.inodes_free, "{layer:?}");
    assert!(memory.cache_bytes.is_some() && memory.mapped_file_bytes.is_some() && memory.limit_hits == Some(0));
    let cpu = container.cpu.as_ref().unwrap();
    assert!(cpu.user_ns.unwrap() + cpu.system_ns.unwrap() > 1_000_000 && cpu.throttling.is_some());
    let detail = container.detail.as_ref().unwrap();
    assert!(detail.threads >= Some(1) && detail.thread_limit.is_some() && detail.oom_kills == 0);
    assert!(detail.open_files >= 3 && detail.sockets == 0 && detail.open_file_limit.is_some(), "{detail:?}");
    assert!(whole.detail.unwrap().open_files > detail.open_files);
    assert!(whole.cpu.unwrap().usage_core_ns >= container.cpu.as_ref().unwrap().usage_core_ns);
    assert!(whole.timestamp_ns > 0 && whole.interfaces.is_empty());
    pod.end().await;
}

#[tokio::test]
async fn limits_change_together_or_not_at_all() {
    let mut pod = TestPod::new().await;
    pod.run("c", "sleep 1000").await;
    let limit = |pod: &TestPod| {
        let base =
            harness::cgroups_named(&pod.name).into_iter().find(|path| path.ends_with("c") && path.to_str().unwrap().contains("/memory/"));
        let cpu = harness::cgroups_named(&pod.name).into_iter().find(|path| path.ends_with("c") && path.starts_with("/sys/fs/cgroup/cpu/"));
        (
            base.map(|path| fs::read_to_string(path.join("memory.limit_in_bytes")).unwrap()),
            cpu.map(|path| fs::read_to_string(path.join("cpu.shares")).unwrap()),
        )
    };
    let update = |text: serde_json::Value| api::UpdateContainerRequest {
        container_id: "c".into(),
        oci_resources: text.to_string().into_bytes().into(),
    };
    pod.pod.update_container(update(serde_json::json!({ "memory": { "limit": 32 << 20 }, "cpu": { "shares": 512 } }))).await.unwrap();
    if limit(&pod).0.is_none() {
        return drop(pod.end().await);
    }
    assert_eq!(limit(&pod), (Some("33554432\n".into()), Some("512\n".into())));
    let refused = pod
        .pod
        .update_container(update(serde_json::json!({ "cpu": { "shares": 256, "cpus": "4096" }, "memory": { "limit": 48 << 20 } })))
        .await;
    assert!(refused.is_err());
    assert_eq!(limit(&pod), (Some("33554432\n".into()), Some("512\n".into())));
    assert_eq!(pod.pod.update_container(update(serde_json::json!([]))).await.unwrap_err().code(), Code::InvalidArgument);
    pod.end().await;
}

/// A pod with a user namespace, whose root can reach its directory.
async fn with_users(namespaces: supervisor::Namespaces, change: impl FnOnce(&mut supervisor::CreateSandboxRequest)) -> TestPod {
    let mapping = vec![supervisor::IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
    let mut pod = TestPod::bare(namespaces).await;
    fs::set_permissions(pod.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut request = pod.sandbox_request();
    request.uid_mappings.clone_from(&mapping);
    request.gid_mappings = mapping;
    change(&mut request);
    pod.made = pod.supervisor.create_sandbox(request).await.unwrap().into_inner();
    pod
}

fn join_users(pod_user: &str, spec: &mut serde_json::Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({ "type": "user", "path": pod_user }));
}

#[tokio::test]
async fn a_container_in_a_user_namespace_is_lent_what_it_cannot_reach() {
    let mut pod = with_users(supervisor::Namespaces { pid: true, ..ORDINARY }, |_| {}).await;
    let user = pod.made.user_path.clone();
    let secret = pod.path("secret");
    fs::create_dir_all(secret.join("volume")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(secret.join("volume/file"), "x").unwrap();
    let mapping = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let script = "cat /proc/self/uid_map; stat -c %u:%g /bin /mapped/file /plain/file /dev/node; exec 3<> /dev/node && echo y > /mapped/new; \
                  grep ' /dev/node ' /proc/mounts | cut -d' ' -f3; echo z > /proc/self/fd/2; sleep 1000";
    pod.create_with("c", &["/bin/sh", "-c", script], |spec, _| {
        join_users(&user, spec);
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let source = secret.join("volume");
        mounts.push(serde_json::json!({ "destination": "/mapped", "type": "bind", "source": source, "options": ["rbind", "rprivate"],
            "uidMappings": mapping, "gidMappings": mapping }));
        mounts.push(serde_json::json!({ "destination": "/plain", "type": "bind", "source": source, "options": ["rbind", "rslave"] }));
        spec["linux"]["devices"] =
            serde_json::json!([{ "path": "/dev/node", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8 }]);
    })
    .await
    .unwrap_or_else(|status| panic!("{status}\n{}", pod.log()));
    // Lent while it was being created, and no longer.
    assert!(!pod.path("bundles/c/lent").exists());
    pod.start("c").await;
    let wanted = ["0:0", "0:0", "65534:65534", "7:8", "tmpfs", "z"];
    let deadline = Instant::now() + Duration::from_secs(10);
    let records = loop {
        let records: Vec<String> = pod.records("c").into_iter().map(|(_, _, payload)| payload).collect();
        if records.len() > wanted.len() || Instant::now() > deadline {
            break records;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(records[0].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(records[1..], wanted);
    assert_eq!(fs::metadata(secret.join("volume/new")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(pod.path("scratch-c/upper")).unwrap().uid(), 100_000);
    assert_eq!(
        String::from_utf8_lossy(&pod.exec("c", "id -u; grep ^0 /proc/self/uid_map; echo ok > /proc/self/fd/1", 0).await.unwrap().stdout),
        "0\nok\n"
    );
    pod.end().await;
}

#[tokio::test]
async fn what_a_user_namespace_does_not_allow_is_refused() {
    let mut pod = with_users(ORDINARY, |_| {}).await;
    let (user, dir) = (pod.made.user_path.clone(), pod.text("layer"));
    let mount = |options: &[&str], size: u32, source: &str| {
        let mapping = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": size }]);
        serde_json::json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options,
            "uidMappings": mapping, "gidMappings": mapping })
    };
    for (mount, code, text) in [
        (mount(&["rbind", "rshared"], 65_536, &dir), Code::InvalidArgument, "cannot be shared"),
        (mount(&["rbind"], 5, &dir), Code::InvalidArgument, "uidMappings"),
        (mount(&["rbind"], 65_536, "/proc/sys"), Code::FailedPrecondition, "knows no mapping of ids"),
        (mount(&["rbind"], 65_536, "/no/such/path"), Code::Internal, "/no/such/path"),
    ] {
        let refused = pod.create_with("c", &["/bin/true"], |spec, _| {
            join_users(&user, spec);
            spec["mounts"].as_array_mut().unwrap().push(mount);
        });
        let status = refused.await.unwrap_err();
        assert!(status.code() == code && status.message().contains(text), "{status}");
        assert!(!pod.path("bundles/c/lent").exists());
    }
    let beyond = api::UserQuery { uid: Some(70_000), ..Default::default() };
    let request = api::PrepareContainerRequest { user: Some(beyond), ..pod.prepare_request("d") };
    assert_eq!(pod.pod.prepare_container(request).await.unwrap_err().code(), Code::InvalidArgument);
    pod.end().await;
}

#[tokio::test]
async fn a_user_namespace_owns_the_pods_other_namespaces() {
    let pod = with_users(ORDINARY, |request| {
        request.sysctls = [("net.ipv4.ip_unprivileged_port_start", "0")].map(|(key, value)| (key.into(), value.into())).into();
    })
    .await;
    assert!(pod.made.user_path.ends_with("/ns/user"));
    let shm = fs::metadata(pod.path("shm")).unwrap();
    assert_eq!((shm.uid(), shm.gid()), (100_000, 100_000));
    pod.end().await;
}

#[tokio::test]
async fn no_signal_is_ignored_or_blocked_in_a_container() {
    let mut pod = TestPod::new().await;
    // Not by way of a shell, which has its own ideas.
    let look = ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"];
    pod.create("first", &look).await;
    pod.start("first").await;
    pod.exit("first").await;
    pod.run("c", "sleep 1000").await;
    let command = look.map(str::to_owned).to_vec();
    let request = api::ExecSyncRequest { container_id: "c".into(), command, output_limit_bytes: 1 << 20, ..Default::default() };
    let joined = pod.pod.exec_sync(request).await.unwrap().into_inner();
    let none = "0000000000000000";
    assert_eq!(String::from_utf8_lossy(&joined.stdout), format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"));
    let first: Vec<String> = pod.records("first").into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(first, [format!("SigBlk:\t{none}"), format!("SigIgn:\t{none}")]);
    pod.end().await;
}
