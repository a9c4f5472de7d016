/**
 * run.ts [--runtime KIND]: from nothing to a pod whose image came over HTTP, in each way a pod can run, told step by step, and back to nothing.
 * Exits non-zero when a step fails or when something is left behind.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import type { RuntimeKind } from "../harness/settings.ts";
import { waitFor } from "../harness/wait.ts";
import { type Seen, sideBySide } from "./compare.ts";
import { lookAt } from "./look.ts";
import { drawPicture } from "./picture.ts";
import { Story } from "./story.ts";

const webServer = `mkdir -p /tmp/www && echo "hello from $(hostname), served by pid $$" > /tmp/www/index.html
echo "serving on port 80" ; trap 'echo "got SIGTERM, going"; exit 0' TERM ; httpd -f -p 80 -h /tmp/www & wait`;

/** Debian's kernel under emulation takes longer than crictl waits by default: 4 s for a pod, 2 s for the rest. */
const CRICTL_TIMEOUT = "60s";

/** A pod of the demo: how it is asked for. */
interface Way {
  readonly name: string;
  /** RuntimeClass handler. */
  readonly handler: string;
  readonly inGuest: boolean;
}

const ways: Readonly<Record<RuntimeKind, readonly Way[]>> = {
  "aurae-cri": [
    { name: "flat", handler: "aurae-flat", inGuest: false },
    { name: "microVM", handler: "aurae-vm", inGuest: true },
  ],
  containerd: [{ name: "runc", handler: "", inGuest: false }],
};

async function main(kind: RuntimeKind): Promise<void> {
  const story = new Story();
  {
    await using stack = new AsyncDisposableStack();
    const node = await story.phase("start a registry with an image of local parts, and the daemon", () =>
      Node.start({ kind, pods: "both" }),
    );
    stack.defer(() => story.phase("stop the daemon; look for anything left behind", () => node[Symbol.asyncDispose]()));
    const reference = node.registry.reference("busybox");
    story.show(await story.phase("crictl pull (over HTTP from 127.0.0.1)", () => node.crictl.run("pull", reference)));
    const seen: Seen[] = [];
    for (const way of ways[kind]) seen.push(await runOne(node, story, way));
    if (kind === "aurae-cri") {
      story.tell(
        "The same pod in both modes. The microVM runs under software emulation (TCG) here, which works on any machine and is slow;\nwith KVM its figures are a fraction of these.",
      );
      console.log(`\n${sideBySide(seen)}`);
    }
    await story.phase("crictl rmi", () => node.crictl.run("rmi", reference));
  }
  story.tell("Nothing left: no process, namespace, mount, cgroup, interface, loop device, address lease or directory.");
  console.log(story.timeTable());
}

async function runOne(node: Node, story: Story, way: Way): Promise<Seen> {
  const { prefix } = node;
  const crictl = (...args: readonly string[]) => node.crictl.run("--timeout", CRICTL_TIMEOUT, ...args);
  const podPath = join(prefix.dir, "pod.json");
  const containerPath = join(prefix.dir, "container.json");
  await writeFile(podPath, JSON.stringify(podConfig(node, way)));
  await writeFile(containerPath, JSON.stringify(containerConfig(node.registry.reference("busybox"))));
  const times: Record<string, string> = {};
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const begunMs = performance.now();
    const result = await story.phase(`${way.name}: ${name}`, work);
    times[name] = `${(performance.now() - begunMs).toFixed(0)} ms`;
    return result;
  };

  const pod = await timed("crictl runp", () => crictl("runp", "-r", way.handler, podPath));
  const container = await timed("crictl create", () => crictl("create", pod, containerPath, podPath));
  await timed("crictl start", () => crictl("start", container));
  story.show(await crictl("ps"));
  const { status, info } = await node.crictl.json<PodStatus>("inspectp", "-o", "json", pod);
  const { ip } = status.network;
  const page = await timed("its page, from the host", () => waitFor("the web server in the pod", () => get(`http://${ip}/`)));
  story.show(page.trim());
  const kernel = await timed("crictl exec -s", () => crictl("exec", "-s", container, "/bin/uname", "-rv"));
  story.show(await crictl("exec", "-s", container, "/bin/sh", "-c", "hostname; ip -4 -o addr show eth0; head -1 /proc/meminfo"));
  story.show(await crictl("logs", container));
  story.show(await story.phase(`${way.name}: crictl stats (two samples, a second apart)`, () => crictl("stats")));
  if (!way.inGuest) console.log(drawPicture(await lookAt(node, { podId: pod, containerId: container, ip })));
  await timed("crictl stop", () => crictl("stop", "--timeout", "5", container));
  story.show(await crictl("logs", "--tail", "1", container));
  await timed("crictl rm, stopp, rmp", async () => {
    await crictl("rm", container);
    await crictl("stopp", pod);
    await crictl("rmp", pod);
  });
  const why = info.isolation === undefined ? {} : { isolation: info.isolation, reason: `${info.reason}: ${info.message}` };
  return { mode: way.name, facts: { "kernel seen inside": kernel.trim(), ...why, ...phasesOf(info), ...times } };
}

interface PodStatus {
  readonly status: { readonly network: { readonly ip: string } };
  readonly info: {
    readonly isolation?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly timeline?: readonly { readonly name: string; readonly durationMs: number }[];
  };
}

function phasesOf({ timeline = [] }: PodStatus["info"]): Record<string, string> {
  return Object.fromEntries(timeline.map(({ name, durationMs }) => [`  phase ${name}`, `${durationMs.toFixed(0)} ms`]));
}

function podConfig(node: Node, way: Way) {
  return {
    metadata: { name: `demo-${way.name}`, namespace: "default", uid: `demo-${way.name}`, attempt: 0 },
    hostname: "demo-pod",
    log_directory: join(node.prefix.logsDir, way.name),
    linux: { cgroup_parent: node.prefix.cgroupParent, security_context: { namespace_options: { pid: 1 } } },
  };
}

function containerConfig(image: string) {
  const linux = { security_context: { namespace_options: { pid: 1 } }, resources: { memory_limit_in_bytes: 64 * 1024 * 1024 } };
  return { metadata: { name: "web" }, image: { image }, command: ["/bin/sh", "-c", webServer], log_path: "web.log", linux };
}

async function get(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(1000), headers: { connection: "close" } });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return await response.text();
}

await runMain(async () => {
  const { values } = parseArgs({ options: { runtime: { type: "string", default: "aurae-cri" } } });
  if (values.runtime !== "aurae-cri" && values.runtime !== "containerd")
    throw new Error(`--runtime ${values.runtime}: want aurae-cri or containerd`);
  await main(values.runtime);
});
