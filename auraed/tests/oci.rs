//! `auraed oci` against the kernel: one test for each fault of the engine below it, and the life of a container.
#![allow(clippy::unwrap_used, clippy::expect_used)]

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

/// What the first process of the container sees in its mount table at `target`: the optional fields.
fn propagation(sandbox: &Sandbox, target: &str) -> String {
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", sandbox.pid())).unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(target)).unwrap();
    line.split(' ').skip(6).take_while(|field| *field != "-").collect::<Vec<_>>().join(" ")
}

/// A tmpfs whose propagation is shared, unmounted when dropped.
struct SharedMount(std::path::PathBuf);

impl SharedMount {
    fn new(path: std::path::PathBuf) -> Self {
        use nix::mount::{MsFlags, mount};
        std::fs::create_dir_all(&path).unwrap();
        mount(Some("shared"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(None::<&str>, &path, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        Self(path)
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn bind(source: &std::path::Path, options: &[&str]) -> serde_json::Value {
    json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options })
}

#[test]
fn rootfs_propagation_takes_every_spelling() {
    for word in ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"] {
        let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
        sandbox.spec["linux"]["rootfsPropagation"] = json!(word);
        sandbox.run();
        let seen = propagation(&sandbox, "/");
        let expected = match word.trim_start_matches('r') {
            "shared" => "shared:",
            "unbindable" | "unbindable\0" => "unbindable",
            _ => "",
        };
        assert!(seen.contains(expected), "{word}: {seen:?}");
    }
    let mut sandbox = Sandbox::new(&["/bin/true"]);
    sandbox.spec["linux"]["rootfsPropagation"] = json!("frivate");
    assert!(!sandbox.create().status.success());
}

#[test]
fn mounts_get_the_propagation_they_ask_for() {
    for (option, expected) in [("rprivate", ""), ("private", ""), ("rslave", "master:"), ("runbindable", "unbindable")] {
        let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
        let shared = SharedMount::new(sandbox.dir.path().join("shared"));
        sandbox.spec["mounts"].as_array_mut().unwrap().push(bind(&shared.0, &["rbind", option]));
        sandbox.run();
        let seen = propagation(&sandbox, "/mnt");
        assert!(seen.contains(expected) && (!expected.is_empty() || seen.is_empty()), "{option}: {seen:?}");
    }
}

#[test]
fn a_shared_mount_shows_the_host_what_the_container_mounts() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    let shared = SharedMount::new(sandbox.dir.path().join("shared"));
    sandbox.spec["mounts"].as_array_mut().unwrap().push(bind(&shared.0, &["rbind", "rshared"]));
    sandbox.spec["linux"]["rootfsPropagation"] = json!("rshared");
    let caps = json!(["CAP_SYS_ADMIN"]);
    sandbox.spec["process"]["capabilities"] = json!({ "bounding": caps, "effective": caps, "permitted": caps });
    sandbox.run();
    sandbox.expect(sandbox.exec("mkdir /mnt/inner && /bin/busybox mount -t tmpfs inner /mnt/inner && touch /mnt/inner/seen"));
    assert!(shared.0.join("inner/seen").exists());
    sandbox.expect(sandbox.exec("/bin/busybox umount /mnt/inner"));
}

#[test]
fn an_id_mapped_mount_is_refused_and_never_skipped() {
    for options in [json!(["rbind", "idmap"]), json!(["rbind", "ridmap"]), json!(["rbind"])] {
        let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
        let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        let mount = json!({
            "destination": "/mnt", "type": "bind", "source": "/tmp", "options": options,
            "uidMappings": mapping, "gidMappings": mapping,
        });
        sandbox.spec["mounts"].as_array_mut().unwrap().push(mount);
        let output = sandbox.create();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("idmapped mount"), "{output:?}");
    }
}

#[test]
fn masked_and_read_only_paths_hold_and_follow_links_inside() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    std::fs::write(sandbox.rootfs().join("etc/secret"), "secret").unwrap();
    std::fs::create_dir(sandbox.rootfs().join("etc/dir")).unwrap();
    std::fs::write(sandbox.rootfs().join("etc/dir/secret"), "secret").unwrap();
    std::os::unix::fs::symlink("/etc/secret", sandbox.rootfs().join("etc/link")).unwrap();
    sandbox.spec["linux"]["maskedPaths"] = json!(["/etc/link", "/etc/dir", "/proc/kcore", "/no/such", "/etc/secret/x"]);
    sandbox.spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/tmp", "/no/such"]);
    sandbox.run();
    let seen = sandbox.expect(sandbox.exec("cat /etc/secret /etc/link; ls /etc/dir; cat /proc/kcore | /bin/busybox head -c 4"));
    assert_eq!(seen, "");
    for script in ["touch /tmp/x", "echo 1 > /proc/sys/kernel/ns_last_pid", "touch /etc/dir/x"] {
        assert!(!sandbox.exec(script).status.success(), "{script}");
    }
}

#[test]
fn what_the_host_does_not_allow_is_clamped_and_said() {
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec["process"]["oomScoreAdj"] = json!(-998);
    sandbox.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 1u64 << 20, "soft": 1u64 << 20 }]);
    sandbox.run();
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", sandbox.pid())).unwrap();
    let score: i32 = score.trim().parse().unwrap();
    assert!(score == -998 || score == own && sandbox.log().contains("oom_score_adj"), "{score}\n{}", sandbox.log());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", sandbox.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.contains("1048576") || sandbox.log().contains("rlimit"), "{files}");
    sandbox.expect(sandbox.exec("true"));
}

#[test]
fn raising_the_oom_score_needs_no_right() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec["process"]["oomScoreAdj"] = json!(900);
    sandbox.run();
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", sandbox.pid())).unwrap();
    assert_eq!(score.trim(), "900");
}

#[test]
fn a_hostile_passwd_neither_hangs_nor_loads_code() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    std::fs::write(sandbox.rootfs().join("etc/nsswitch.conf"), "passwd: evil\n").unwrap();
    nix::unistd::mkfifo(&sandbox.rootfs().join("etc/passwd"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    sandbox.spec["process"]["user"] = json!({ "uid": 7, "gid": 7 });
    sandbox.run();
    std::fs::remove_file(sandbox.rootfs().join("etc/passwd")).unwrap();
    std::fs::write(sandbox.rootfs().join("etc/passwd"), "seven:x:7:7::/home/seven:/bin/sh\n").unwrap();
    assert_eq!(sandbox.expect(sandbox.exec("echo $HOME")), "/home/seven\n");
}

#[test]
fn resources_are_changed() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 } });
    sandbox.run();
    let file = sandbox.dir.path().join("resources.json");
    std::fs::write(&file, json!({ "memory": { "limit": 96 << 20 }, "cpu": { "shares": 512 } }).to_string()).unwrap();
    sandbox.expect(sandbox.oci(&["update", "--resources", file.to_str().unwrap(), &sandbox.id]));
    let v1 = format!("/sys/fs/cgroup/memory/{}/container/memory.limit_in_bytes", sandbox.id);
    let v2 = format!("/sys/fs/cgroup/{}/container/memory.max", sandbox.id);
    let limit = std::fs::read_to_string(v1).or_else(|_| std::fs::read_to_string(v2)).unwrap();
    assert_eq!(limit.trim(), (96 << 20).to_string());
}

#[test]
fn features_are_those_tested_here() {
    let sandbox = Sandbox::new(&["/bin/true"]);
    let features: serde_json::Value = serde_json::from_str(&sandbox.expect(sandbox.oci(&["features"]))).unwrap();
    let options: Vec<&str> = features["mountOptions"].as_array().unwrap().iter().map(|option| option.as_str().unwrap()).collect();
    for option in ["rbind", "rprivate", "rshared", "rslave", "rro", "ro"] {
        assert!(options.contains(&option), "{option}");
    }
    assert!(!options.contains(&"idmap") && !options.contains(&"ridmap"));
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], false);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("user")));
}

/// Puts the container, not yet created, into a user namespace.
fn map_users(sandbox: &mut Sandbox) {
    let mapping = json!([{ "containerID": 0, "hostID": 200_000, "size": 65_536 }]);
    sandbox.spec["linux"]["uidMappings"] = mapping.clone();
    sandbox.spec["linux"]["gidMappings"] = mapping;
    sandbox.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let chowned = std::process::Command::new("chown").args(["-R", "200000:200000"]).arg(sandbox.rootfs()).status().unwrap();
    assert!(chowned.success());
    for path in [sandbox.dir.path().to_owned(), sandbox.bundle()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_user_namespace_is_joined_by_exec_too() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    map_users(&mut sandbox);
    sandbox.run();
    let map = sandbox.expect(sandbox.exec("cat /proc/self/uid_map"));
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
}

#[test]
fn supplementary_groups_are_those_listed_and_no_others() {
    for (groups, expected) in [(None, "0"), (Some(json!([])), "0"), (Some(json!([7, 9])), "0 7 9")] {
        let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
        if let Some(groups) = groups {
            sandbox.spec["process"]["user"]["additionalGids"] = groups;
        }
        // The caller's own groups, which must not show through.
        nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4242)]).unwrap();
        sandbox.run();
        assert_eq!(sandbox.expect(sandbox.exec("/bin/busybox id -G")).trim(), expected);
    }
}

#[test]
fn devices_are_confined() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.spec["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    sandbox.run();
    sandbox.expect(sandbox.exec("echo x > /dev/null && /bin/busybox head -c 1 /dev/zero"));
    sandbox.expect(sandbox.exec("/bin/busybox mknod /tmp/kmsg c 1 11"));
    assert!(!sandbox.exec("/bin/busybox head -c 1 < /tmp/kmsg").status.success());
}

#[test]
fn a_program_that_cannot_be_run_is_named_and_leaves_nothing() {
    for args in [&["/no/such/program"][..], &["no-such-name"], &["/etc"]] {
        let sandbox = Sandbox::new(args);
        let output = sandbox.create();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(args[0]), "{text}");
        assert!(!sandbox.dir.path().join("state").join(&sandbox.id).exists());
        assert_eq!(sandbox.cgroups("container"), Vec::<std::path::PathBuf>::new());
    }
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.run();
    let output = sandbox.exec_with(json!({ "args": ["/no/such/program"] }));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/no/such/program"), "{text}");
}

#[test]
fn a_second_create_of_the_same_id_is_refused_and_harms_nothing() {
    let sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    sandbox.run();
    let pid = sandbox.pid();
    assert!(String::from_utf8_lossy(&sandbox.create().stderr).contains("exists"));
    assert!(sandbox.exec("true").status.success());
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_terminal_is_handed_over() {
    use std::os::fd::AsFd;
    let mut sandbox = Sandbox::new(&["/bin/sh", "-c", "echo on $(/bin/busybox tty); sleep 1000"]);
    sandbox.spec["process"]["terminal"] = json!(true);
    let socket = sandbox.dir.path().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::write(sandbox.bundle().join("config.json"), sandbox.spec.to_string()).unwrap();
    let bundle = sandbox.bundle();
    let (bundle, socket) = (bundle.to_str().unwrap(), socket.to_str().unwrap());
    sandbox.expect(sandbox.oci(&["create", "--bundle", bundle, "--console-socket", socket, &sandbox.id]));
    let (stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 256];
    let mut slices = [std::io::IoSliceMut::new(&mut buffer)];
    rustix::net::recvmsg(&stream, &mut slices, &mut control, rustix::net::RecvFlags::CMSG_CLOEXEC).unwrap();
    let terminal = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let terminal = terminal.expect("no descriptor came");
    sandbox.expect(sandbox.oci(&["start", &sandbox.id]));
    let mut seen = String::new();
    while !seen.contains('\n') {
        let mut ready = [nix::poll::PollFd::new(terminal.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut ready, 5_000u16).unwrap(), 1, "nothing came out of the terminal");
        let mut chunk = [0; 64];
        let length = rustix::io::read(&terminal, &mut chunk).unwrap();
        seen.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    assert!(seen.starts_with("on /dev/"), "{seen}");
}

#[test]
fn a_cgroup_mount_is_as_writable_as_its_options_say() {
    let limit = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "/sys/fs/cgroup/memory.max"
    } else {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    };
    let parent = std::path::Path::new(limit).parent().unwrap().display();
    for (namespace, option) in [(false, "ro"), (false, "rw"), (true, "ro"), (true, "rw")] {
        let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
        let options = ["nosuid", "noexec", "nodev", "relatime", option];
        let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
        sandbox.spec["mounts"].as_array_mut().unwrap().push(mount);
        if namespace {
            sandbox.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
        }
        sandbox.run();
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", sandbox.pid())).unwrap();
        let mounts = table.lines().filter(|line| line.split(' ').nth(4).unwrap().starts_with("/sys/fs/cgroup"));
        let flags: Vec<&str> = mounts.map(|line| line.split(' ').nth(5).unwrap()).collect();
        assert!(!flags.is_empty() && flags.iter().all(|flags| *flags == format!("{option},nosuid,nodev,noexec,relatime")), "{table}");
        for script in [format!("mkdir {parent}/x && /bin/busybox rmdir {parent}/x"), format!("echo 1073741824 > {limit}")] {
            let output = sandbox.exec(&script);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if option == "rw" {
                assert!(output.status.success(), "{script}: {said}");
            } else {
                assert!(!output.status.success() && said.contains("Read-only file system"), "{script}: {said}");
            }
        }
        let top = sandbox.exec("mkdir /sys/fs/cgroup/x && /bin/busybox rmdir /sys/fs/cgroup/x");
        assert_eq!(top.status.success(), option == "rw", "{top:?}");
    }
}

#[test]
fn a_read_only_cgroup_mount_is_so_in_a_user_namespace_too() {
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
    sandbox.spec["mounts"].as_array_mut().unwrap().push(mount);
    map_users(&mut sandbox);
    sandbox.run();
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", sandbox.pid())).unwrap();
    let mounts = table.lines().filter(|line| line.split(' ').nth(4).unwrap().starts_with("/sys/fs/cgroup"));
    let flags: Vec<&str> = mounts.map(|line| line.split(' ').nth(5).unwrap()).collect();
    assert!(!flags.is_empty() && flags.iter().all(|flags| flags.starts_with("ro,")), "{table}");
    assert!(!sandbox.exec("mkdir /sys/fs/cgroup/x").status.success());
}

/// The first of so many process ids in a row that nobody has on this host.
fn unused_pids(count: usize) -> usize {
    let used = |pid: &usize| std::path::Path::new(&format!("/proc/{pid}")).exists();
    (100..).step_by(count).find(|first| !(*first..first + count).any(|pid| used(&pid))).unwrap()
}

#[test]
fn a_joined_pid_namespace_does_not_confuse_cgroup_mounts() {
    let target = Sandbox::new(&["/bin/sleep", "1000"]);
    target.run();
    let caps = json!(["CAP_SYS_ADMIN"]);
    let script = format!("echo {} > /proc/sys/kernel/ns_last_pid", unused_pids(64));
    let process = json!({
        "args": ["/bin/sh", "-c", script],
        "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
    });
    target.expect(target.exec_with(process));
    let mut sandbox = Sandbox::new(&["/bin/sleep", "1000"]);
    let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] });
    sandbox.spec["mounts"].as_array_mut().unwrap().push(mount);
    sandbox.spec["linux"]["namespaces"][0]["path"] = json!(format!("/proc/{}/ns/pid", target.pid()));
    sandbox.run();
    let namespace = |of: &Sandbox| std::fs::read_link(format!("/proc/{}/ns/pid", of.pid())).unwrap();
    assert_eq!(namespace(&sandbox), namespace(&target));
}
