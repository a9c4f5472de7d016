//! `auraed pod` against the kernel: sandboxes, the life of containers, output, exec, events, shutdown.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use auraed::api::pod::v0::{self as api};
use auraed::api::supervisor::v0::{self as supervisor};
use harness::{AURAED, ORDINARY, TestPod};
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
    assert!(exit.finished_at_ns > 0);
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
    assert_eq!(records.iter().map(|(stream, _, payload)| (stream.as_str(), payload.trim_end())).collect::<Vec<_>>(), [
        ("stdout", "/dev/pts/0"),
        ("stdout", "err")
    ]);
    pod.end().await;
}

#[tokio::test]
async fn the_oom_killer_is_noticed() {
    let mut pod = TestPod::new().await;
    let eat = ["/bin/sh", "-c", "tail -c 200000000 /dev/zero"];
    pod.create_with("c", &eat, |spec, _| spec["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 15 << 20, "swap": 15 << 20 } })).await.unwrap();
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
        request.sysctls = [("net.ipv4.ip_unprivileged_port_start", "0"), ("kernel.shm_rmid_forced", "1")].map(|(key, value)| (key.into(), value.into())).into();
    })
    .await;
    let again = pod.supervisor.create_sandbox(pod.sandbox_request()).await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(fs::metadata(pod.path("shm")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_ne!(fs::metadata(pod.path("ns/net")).unwrap().ino(), fs::metadata("/proc/self/ns/net").unwrap().ino());
    pod.run("c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; ifconfig lo | grep -c 'UP LOOPBACK'").await;
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
    pod.end().await;
}
