//! The log of `auraed pod`: what of a call is in it.
#![allow(clippy::unwrap_used)]

mod harness;

use auraed::api::pod::v0 as api;
use harness::TestPod;

#[tokio::test]
async fn each_call_is_one_line_of_the_log() {
    fn with_id<T>(message: T, id: &str) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        request
    }
    let mut pod = TestPod::new().await;
    pod.create("c", &["/bin/sleep", "1000"]).await;
    let start = api::StartContainerRequest { container_id: "c".into() };
    pod.pod.start_container(with_id(start.clone(), "first")).await.unwrap();
    pod.pod.start_container(with_id(start, "second")).await.unwrap_err();
    pod.pod.list_containers(with_id(api::ListContainersRequest {}, "third")).await.unwrap();
    let exec = api::ExecSyncRequest { container_id: "c".into(), command: vec!["/bin/true".into()], ..Default::default() };
    pod.pod.exec_sync(with_id(exec, "fourth")).await.unwrap();
    let log = pod.log();
    for (id, level, wanted) in [
        ("first", "INFO", "method=StartContainer outcome=Ok duration_ms="),
        ("second", "INFO", "method=StartContainer outcome=FailedPrecondition duration_ms="),
        ("third", "DEBUG", "method=ListContainers outcome=Ok duration_ms="),
        ("fourth", "DEBUG", "method=ExecSync outcome=Ok duration_ms="),
    ] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("request_id={id}"))).collect();
        assert!(matches!(lines[..], [line] if line.contains(wanted) && line.contains(level)), "{id}: {log}");
        assert_eq!(lines[0].contains("container_id=c"), id != "third", "{log}");
        assert_eq!(lines[0].contains(" error="), id == "second", "{log}");
    }
    assert!(!log.contains("a call was refused"), "{log}");
    pod.end().await;
}
