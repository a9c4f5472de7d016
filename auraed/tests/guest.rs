//! A microVM's guest, booted by QEMU: what `auraed init` promises on its control port.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod machine;

use std::collections::HashMap;
use std::time::Duration;

use auraed::api::guest::v0 as guest;
use auraed::api::guest::v0::log_records::Content;
use auraed::api::pod::v0 as api;
use machine::{Hardware, Machine, configuration, kernel, layer};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// The other end of a guest's logs: keeps every container's records.
struct Logs {
    acks: mpsc::Sender<guest::LogAck>,
    messages: Streaming<guest::LogRecords>,
    text: HashMap<String, Vec<u8>>,
}

impl Logs {
    async fn open(machine: &mut Machine) -> Self {
        let (acks, receiver) = mpsc::channel(16);
        acks.send(guest::LogAck::default()).await.unwrap();
        let messages = machine.guest.logs(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { acks, messages, text: HashMap::new() }
    }

    async fn next(&mut self) -> guest::LogRecords {
        tokio::time::timeout(Duration::from_secs(20), self.messages.message()).await.expect("a record in time").unwrap().unwrap()
    }

    async fn acknowledge(&self, through: u64) {
        self.acks.send(guest::LogAck { through, error: String::new() }).await.unwrap();
    }

    /// Keeps and acknowledges everything from now on, as `auraed vm` does.
    fn keep(mut self) -> tokio::task::JoinHandle<HashMap<String, Vec<u8>>> {
        tokio::spawn(async move {
            while let Ok(Some(message)) = self.messages.message().await {
                if let Some(Content::Records(records)) = message.content {
                    self.text.entry(message.container_id).or_default().extend_from_slice(&records);
                }
                if self.acks.send(guest::LogAck { through: message.number, error: String::new() }).await.is_err() {
                    break;
                }
            }
            self.text
        })
    }
}

fn payloads(records: &[u8]) -> Vec<String> {
    harness::parse_records(records).into_iter().map(|(_, _, payload)| payload).collect()
}

#[tokio::test]
async fn boots_answers_and_turns_itself_off() {
    let Some(kernel) = kernel() else { return };
    let mut machine = Machine::boot(&kernel, Hardware { memory_mib: 64, scratch: false }).await;
    assert!(machine.console().contains("auraed init: serving"), "{}", machine.console());
    // Under TCG, on a machine that may be busy with other tests.
    assert!(machine.first_answer < Duration::from_secs(10), "{:?}", machine.first_answer);
    let status = machine.configure(configuration()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("serial \"scratch\""), "{status}");
    let status = machine.guest.mount_layers(guest::MountLayersRequest { layers: vec![layer(1)] }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("02.1"), "{status}");
    machine.end().await;
}

#[tokio::test]
async fn a_container_lives_in_a_guest() {
    let Some(kernel) = kernel() else { return };
    let mut machine = Machine::ready(&kernel).await;
    configured_as_asked(&mut machine).await;
    let logs = Logs::open(&mut machine).await.keep();
    machine
        .run("c", "echo to stdout; echo to stderr >&2; echo x >/written; trap 'exit 7' TERM; while :; do sleep 0.05; done", |_| {})
        .await;
    for (script, expected) in [
        ("cat /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn /proc/sys/vm/swappiness", "9000\n777\n7\n"),
        ("hostname", "a-guest\n"),
        ("cat /etc/hosts", "127.0.0.1 localhost\n10.9.0.2 a-guest\n"),
        (
            "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu 2>/dev/null || ifconfig eth0 | grep -o 'HWaddr [0-9A-F:]*'",
            "HWaddr 02:00:00:00:BB:02\n",
        ),
        (
            "awk 'NR>1 {print $2, $3, $7, $8}' /proc/net/route",
            "00000000 0101FEA9 0 00000000\n0000090A 00000000 50 00FFFFFF\n0101FEA9 00000000 0 FFFFFFFF\n",
        ),
        (
            "awk '$10 == \"eth0\" && $1 !~ /^f[ef]/ {print $1, $2, $5}' /proc/net/ipv6_route | grep -v '80 00000000000000000000000000000000'",
            "fd090000000000000000000000000000 40 00000000000000000000000000000000\n00000000000000000000000000000000 00 fd090000000000000000000000000001\n",
        ),
        ("awk '$6 == \"eth0\" && $4 == \"00\" {print $1, $3, $5}' /proc/net/if_inet6", "fd090000000000000000000000000002 40 82\n"),
        ("awk '$5 == \"/dev/shm\" {print $4}' /proc/self/mountinfo", "/\n"),
        ("ifconfig eth0 | grep -o 'MTU:[0-9]*'; ifconfig lo | grep -c UP", "MTU:1400\n1\n"),
        ("cat /proc/1/cgroup; test $(grep -c . /proc/self/mountinfo) -lt 30", "0::/pod/c\n"),
    ] {
        assert_eq!(machine.output("c", script).await, expected, "{script}");
    }
    statistics(&mut machine).await;
    machine.pod.signal_container(api::SignalContainerRequest { container_id: "c".to_owned(), signal: 15, all: false }).await.unwrap();
    let exit = machine.exit("c").await;
    assert_eq!((exit.code, exit.oom_killed), (7, false));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert!(now.abs_diff(u128::try_from(exit.finished_at_ns).unwrap()) < 60_000_000_000, "the clock is the host's");
    machine.pod.delete_container(api::DeleteContainerRequest { container_id: "c".to_owned() }).await.unwrap();
    machine.end().await;
    let mut written = payloads(&logs.await.unwrap()["c"]);
    // Two pipes have no order.
    written.sort();
    assert_eq!(written, ["to stderr", "to stdout"]);
}

async fn configured_as_asked(machine: &mut Machine) {
    let facts = machine.configured.clone();
    assert_eq!((facts.ipc_path.as_str(), facts.uts_path.as_str(), facts.pid_path.as_str()), ("/run/aurae/ns/ipc", "/run/aurae/ns/uts", ""));
    assert!(facts.cpus == 1 && facts.seccomp && facts.capabilities > 1 << 38 && !facts.kernel_release.is_empty(), "{facts:?}");
    assert!((100..192).contains(&(facts.memory_total_bytes >> 20)), "{facts:?}");
    machine.configure(configuration()).await.unwrap();
    assert_eq!(machine.configured, facts, "the identical second call answers like the first");
    let other = guest::ConfigureRequest { hostname: "another".to_owned(), ..configuration() };
    assert_eq!(machine.configure(other).await.unwrap_err().code(), Code::AlreadyExists);
    let request = guest::MountLayersRequest { layers: vec![layer(0)] };
    assert_eq!(machine.guest.mount_layers(request).await.unwrap().into_inner().paths, ["/run/aurae/layers/layer-0"]);
    let elsewhere = guest::Layer { pci_path: "02.1/00.0".to_owned(), ..layer(0) };
    let status = machine.guest.mount_layers(guest::MountLayersRequest { layers: vec![elsewhere] }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

async fn statistics(machine: &mut Machine) {
    let stats = machine.pod.stats(api::StatsRequest::default()).await.unwrap().into_inner();
    let pod = stats.pod.unwrap();
    assert_eq!(pod.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    assert!(pod.cpu.unwrap().usage_core_ns > 0 && pod.memory.unwrap().usage_bytes > 0 && pod.process_count >= 2);
    let [container] = &stats.containers[..] else { panic!("{:?}", stats.containers) };
    assert!(container.memory.as_ref().unwrap().usage_bytes > 0 && container.process_count >= 1);
    assert!(container.writable_layer.as_ref().unwrap().inodes_used >= 2);
}

#[tokio::test]
async fn a_container_out_of_memory_is_told_apart() {
    let Some(kernel) = kernel() else { return };
    let mut machine = Machine::ready(&kernel).await;
    let logs = Logs::open(&mut machine).await.keep();
    let limit = |spec: &mut serde_json::Value| spec["linux"]["resources"] = json!({ "memory": { "limit": 8 << 20 } });
    machine.run("greedy", "exec tail -c 64m /dev/zero", limit).await;
    let exit = machine.exit("greedy").await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    machine.run("modest", "exit 3", limit).await;
    let exit = machine.exit("modest").await;
    assert_eq!((exit.code, exit.oom_killed), (3, false));
    machine.end().await;
    logs.await.unwrap();
}

#[tokio::test]
async fn containers_share_a_pid_namespace_that_is_not_the_guests() {
    let Some(kernel) = kernel() else { return };
    let configuration = guest::ConfigureRequest { shared_pid: true, interface: None, shm_size_bytes: 1 << 20, ..configuration() };
    let mut machine = Machine::ready_with(&kernel, configuration).await;
    assert_eq!(machine.configured.pid_path, "/run/aurae/ns/pid");
    let logs = Logs::open(&mut machine).await.keep();
    machine.run("a", "exec sleep 1001", |_| {}).await;
    machine.run("b", "exec sleep 1002", |_| {}).await;
    let seen = machine.output("b", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(seen.starts_with("/init reaper sleep 1001 sleep 1002 "), "{seen}");
    assert_eq!(machine.output("b", "ls /sys/class/net 2>/dev/null; ifconfig | grep -c eth0; true").await, "0\n");
    machine.end().await;
    logs.await.unwrap();
}

#[tokio::test]
async fn logs_wait_for_the_host_and_lose_nothing() {
    let Some(kernel) = kernel() else { return };
    let mut machine = Machine::ready(&kernel).await;
    // Some 1.1 MB of records: more than may wait.
    machine.run("talker", "seq 1 20000; echo written >/done; sleep 0.3", |_| {}).await;
    machine.run("other", "echo hello; sleep 60", |_| {}).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(machine.exec("talker", "cat /done").await.exit_code, 1, "it waits while nobody takes its records");
    let mut first = Logs::open(&mut machine).await;
    let seen: Vec<_> = [first.next().await, first.next().await, first.next().await].into();
    assert_eq!(seen.iter().map(|message| message.number).collect::<Vec<_>>(), [1, 2, 3]);
    first.acknowledge(1).await;
    // Everything sent before has arrived when a later call is answered.
    machine.exec("other", "true").await;
    let mut second = Logs::open(&mut machine).await;
    let again = second.next().await;
    assert_eq!((again.number, &again.content), (2, &seen[1].content), "from what was last acknowledged");
    // What was under way on the first stream, and its end.
    while first.messages.message().await.unwrap().is_some() {}
    let Some(Content::Records(begin)) = seen[0].content.clone() else { panic!("{:?}", seen[0]) };
    second.text.insert(seen[0].container_id.clone(), begin.to_vec());
    let Some(Content::Records(records)) = again.content else { panic!() };
    second.text.entry(again.container_id).or_default().extend_from_slice(&records);
    second.acknowledge(2).await;
    let logs = second.keep();
    assert_eq!(machine.exit("talker").await.code, 0);
    machine.end().await;
    let text = logs.await.unwrap();
    assert_eq!(payloads(&text["talker"]), (1..=20000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(payloads(&text["other"]), ["hello"]);
}

#[tokio::test]
async fn a_reopen_and_an_exit_wait_for_their_acknowledgement() {
    let Some(kernel) = kernel() else { return };
    let mut machine = Machine::ready(&kernel).await;
    let mut logs = Logs::open(&mut machine).await;
    machine.run("c", "trap 'echo two; exit 0' TERM; echo one; while :; do sleep 0.05; done", |_| {}).await;
    let first = logs.next().await;
    logs.acknowledge(first.number).await;
    for problem in ["no space left", ""] {
        let mut pod = machine.pod.clone();
        let reopening = tokio::spawn(async move { pod.reopen_log(api::ReopenLogRequest { container_id: "c".to_owned() }).await });
        let reopen = logs.next().await;
        assert!(matches!(reopen.content, Some(Content::Reopen(_))), "{reopen:?}");
        assert!(!reopening.is_finished());
        logs.acks.send(guest::LogAck { through: reopen.number, error: problem.to_owned() }).await.unwrap();
        match reopening.await.unwrap() {
            Ok(_) => assert_eq!(problem, ""),
            Err(status) => assert!(!problem.is_empty() && status.message().contains(problem), "{status}"),
        }
    }
    machine.pod.signal_container(api::SignalContainerRequest { container_id: "c".to_owned(), signal: 15, all: false }).await.unwrap();
    let last = logs.next().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let list = machine.pod.list_containers(api::ListContainersRequest {}).await.unwrap().into_inner();
    assert_eq!(list.containers[0].state(), api::ContainerState::Running, "its last records are not in the file yet");
    logs.acknowledge(last.number).await;
    assert_eq!(machine.exit("c").await.code, 0);
    machine.end().await;
}
