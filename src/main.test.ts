import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { mkdtempDisposable, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";

const launcher = new URL("../bin/aurae-cri", import.meta.url).pathname;

async function tempDir(): Promise<AsyncDisposable & { readonly path: string }> {
  return await mkdtempDisposable(join(tmpdir(), "aurae-cri-main-"));
}

function command(...args: readonly string[]): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  return spawnSync(launcher, args, { encoding: "utf8" });
}

test("works through a symlink and from any directory", async () => {
  await using dir = await tempDir();
  const link = join(dir.path, "aurae");
  await symlink(launcher, link);
  const { status, stdout } = spawnSync("./aurae", ["version"], { cwd: dir.path, encoding: "utf8" });
  assert.equal(status, 0);
  assert.match(stdout, /^aurae-cri \d+\.\d+\.\d+ \(CRI v1, Node 26\./);
});

test("exit codes and where text goes", async () => {
  await using dir = await tempDir();
  const bad = join(dir.path, "bad.toml");
  await writeFile(bad, "roof = 1\n[log]\nlevel = 3\n");
  const good = join(dir.path, "good.toml");
  await writeFile(good, command("config", "default").stdout);
  assert.deepEqual({ ...pick(command("config", "validate", good)) }, { status: 0, stdout: "", stderr: "" });
  const refused = pick(command("config", "validate", bad));
  assert.deepEqual([refused.status, refused.stdout], [2, ""]);
  assert.match(
    refused.stderr,
    /^aurae-cri: \S+bad\.toml:1:1: unknown key 'roof' \(did you mean 'root'\?\)\naurae-cri: \S+bad\.toml:3:9: log\.level: want "error"/,
  );
  assert.equal(command("serve", "--config", bad).status, 2);
  assert.equal(command("sevre").status, 2);
  assert.match(command("--help").stdout, /Usage:/);
  assert.match(command("config", "show", "--root", "/r").stdout, /^root = "\/r"$/m);
});

function pick({ status, stdout, stderr }: { readonly status: number | null; readonly stdout: string; readonly stderr: string }) {
  return { status, stdout, stderr };
}

interface Served extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly lines: Record<string, unknown>[];
  /** Resolves with the first line of that message. */
  line(message: string): Promise<Record<string, unknown>>;
  exit(): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
}

/** A daemon of its own below `dir`; killed at the end of the block when it still runs. */
function serve(dir: string, settings = ""): Served {
  const config = join(dir, "config.toml");
  writeFileSync(config, `oci.bundle_dir = "${dir}/bundles"\ncni.conf_dir = "${dir}/net.d"\nauraed.path = "/bin/false"\n${settings}`);
  const args = ["serve", "--config", config, "--root", `${dir}/root`, "--state", `${dir}/state`, "--listen", `unix://${dir}/cri.sock`];
  const child = spawn(launcher, args, { stdio: ["ignore", "ignore", "pipe"] });
  const exited = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
  const closed = once(child, "close");
  const lines: Record<string, unknown>[] = [];
  const reader = createInterface({ input: child.stderr });
  reader.on("line", (text) => lines.push(text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : { text }));
  return {
    child,
    lines,
    async line(message) {
      for (;;) {
        const found = lines.find((line) => line["message"] === message);
        if (found !== undefined) return found;
        if (child.exitCode !== null) assert.fail(`ended without '${message}': ${JSON.stringify(lines)}`);
        await Promise.race([once(reader, "line"), closed]);
      }
    },
    async exit() {
      const [code, signal] = await exited;
      await closed;
      return { code, signal };
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await closed;
    },
  };
}

test("serves until SIGTERM, and then nothing keeps the process", async () => {
  await using dir = await tempDir();
  await using daemon = serve(dir.path);
  assert.equal((await daemon.line("starting"))["pid"], daemon.child.pid, "the launcher must replace itself");
  await daemon.line("serving");
  daemon.child.kill("SIGTERM");
  assert.deepEqual(await daemon.exit(), { code: 0, signal: null });
  assert.deepEqual(
    daemon.lines.slice(-2).map((line) => line["message"]),
    ["stopping", "stopped"],
  );
});

test("a second daemon on the root is refused, and starts when the first was killed", async () => {
  await using dir = await tempDir();
  await using first = serve(dir.path);
  await first.line("serving");
  await using second = serve(dir.path);
  assert.equal((await second.exit()).code, 1);
  assert.match(
    String((await second.line("failed"))["error"]),
    new RegExp(`daemon\\.lock is held by another aurae-cri \\(pid ${first.child.pid}\\)`),
  );
  first.child.kill("SIGKILL");
  await first.exit();
  await using third = serve(dir.path);
  await third.line("serving");
  third.child.kill("SIGINT");
  assert.deepEqual(await third.exit(), { code: 0, signal: null });
});

test("metrics are served where the configuration says, and nowhere without", async () => {
  await using dir = await tempDir();
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const address = taken.address();
  assert.ok(typeof address === "object" && address !== null);
  const { port } = address;
  await using refused = serve(dir.path, `metrics.port = ${port}\n`);
  assert.equal((await refused.exit()).code, 1);
  assert.match(String((await refused.line("failed"))["error"]), /metrics\.address or metrics\.port/);
  await new Promise((resolve) => taken.close(resolve));

  await using daemon = serve(dir.path, `metrics.port = ${port}\n`);
  await daemon.line("serving");
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(text, /^aurae_cri_virtualization_available 0$/m);
  daemon.child.kill("SIGTERM");
  assert.deepEqual(await daemon.exit(), { code: 0, signal: null });
});
