//! `auraed oci` against the kernel: one test for each fault of the engine below it, and the life of a container.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Sandbox, seccomp};
use serde_json::json;

#[test]
fn lives_from_create_to_delete() {
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.expect(sandbox.create());
    let state: serde_json::Value = serde_json::from_str(&sandbox.expect(sandbox.oci(&["state", &sandbox.id]))).unwrap();
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], sandbox.pid());
    sandbox.expect(sandbox.oci(&["start", &sandbox.id]));
    let text = sandbox.expect(sandbox.exec("echo hello; cat /proc/1/comm"));
    assert_eq!(text, "hello\nsleep\n");
    assert_eq!(sandbox.exec("exit 7").status.code(), Some(7));
    sandbox.expect(sandbox.oci(&["kill", &sandbox.id, "KILL"]));
    sandbox.expect(sandbox.oci(&["delete", "--force", &sandbox.id]));
    let again = sandbox.oci(&["state", &sandbox.id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("does not exist"));
    let last = sandbox.log().lines().last().unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"));
}

#[test]
fn exec_keeps_seccomp() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec["linux"]["seccomp"] = seccomp();
    sandbox.run();
    let first = std::fs::read_to_string(format!("/proc/{}/status", sandbox.pid())).unwrap();
    assert!(first.contains("Seccomp:\t2"), "{first}");
    let joined = sandbox.expect(sandbox.exec("grep Seccomp: /proc/self/status"));
    assert_eq!(joined.trim(), "Seccomp:\t2");
}

#[test]
fn exec_leaves_nothing_in_the_state_directory() {
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.run();
    let state = sandbox.dir.path().join("state").join(&sandbox.id);
    let before = std::fs::read_dir(&state).unwrap().count();
    sandbox.expect(sandbox.exec("true"));
    assert!(!sandbox.exec_with(json!({ "args": ["/no/such/program"] })).status.success());
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), before);
}

#[test]
fn new_privileges_may_be_allowed_beside_seccomp() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec["linux"]["seccomp"] = seccomp();
    sandbox.spec["process"]["noNewPrivileges"] = json!(false);
    sandbox.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    sandbox.run();
    let text = sandbox.expect(sandbox.exec("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status"));
    assert_eq!(text, "NoNewPrivs:\t0\nSeccomp:\t2\n");
}
