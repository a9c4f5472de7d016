import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposable } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { notifyServiceManager } from "./sd-notify.ts";

/** Prints every datagram that reaches the socket; Node cannot, perl is part of every Debian. */
const receiver = `use Socket; $| = 1; socket(S, PF_UNIX, SOCK_DGRAM, 0) or die; bind(S, sockaddr_un($ARGV[0])) or die; print "bound\\n";
while (defined recv(S, $b, 4096, 0)) { print "$b\\n" if $b ne ""; }`;

const missing = spawnSync("systemd-notify", ["--version"]).status !== 0 || spawnSync("perl", ["-v"]).status !== 0;
const options = { signal: new AbortController().signal };

test("a state reaches the socket of the service manager", { skip: missing && "systemd-notify or perl is missing" }, async () => {
  await using dir = await mkdtempDisposable(join(tmpdir(), "aurae-cri-notify-"));
  const socket = join(dir.path, "notify");
  const child = spawn("perl", ["-e", receiver, socket], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, "bound");
    await notifyServiceManager(socket, "READY=1", options);
    assert.equal((await lines.next()).value, "READY=1");
  } finally {
    child.kill("SIGKILL");
    await exited;
  }
});

test("nobody behind the socket is an error", { skip: missing && "systemd-notify is missing" }, async () => {
  await assert.rejects(notifyServiceManager("/nonexistent/notify", "READY=1", options), /systemd-notify READY=1 ended with 1: /);
});
