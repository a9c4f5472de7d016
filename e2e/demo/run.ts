/**
 * run.ts [--runtime KIND]: from nothing to a pod whose image came over HTTP, told step by step, and back to nothing. Exits non-zero when a step
 * fails or when something is left behind.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { runMain } from "../harness/main.ts";
import { Node } from "../harness/node.ts";
import type { RuntimeKind } from "../harness/settings.ts";
import { waitFor } from "../harness/wait.ts";
import { lookAt } from "./look.ts";
import { drawPicture } from "./picture.ts";
import { Story } from "./story.ts";

const webServer = `mkdir -p /tmp/www && echo "hello from $(hostname), served by pid $$" > /tmp/www/index.html
echo "serving on port 80" ; trap 'echo "got SIGTERM, going"; exit 0' TERM ; httpd -f -p 80 -h /tmp/www & wait`;

async function main(kind: RuntimeKind): Promise<void> {
  const story = new Story();
  {
    await using stack = new AsyncDisposableStack();
    const node = await story.phase("start a registry with an image of local parts, and the daemon", () => Node.start({ kind }));
    stack.defer(() => story.phase("stop the daemon; look for anything left behind", () => node[Symbol.asyncDispose]()));
    await session(node, story);
  }
  story.tell("Nothing left: no process, namespace, mount, cgroup, interface, loop device, address lease or directory.");
  console.log(story.timeTable());
}

async function session(node: Node, story: Story): Promise<void> {
  const { crictl, prefix } = node;
  const reference = node.registry.reference("busybox");
  const podPath = join(prefix.dir, "pod.json");
  const containerPath = join(prefix.dir, "container.json");
  await writeFile(podPath, JSON.stringify(podConfig(node)));
  await writeFile(containerPath, JSON.stringify(containerConfig(reference)));

  story.show(await story.phase("crictl pull (over HTTP from 127.0.0.1)", () => crictl.run("pull", reference)));
  story.show(await crictl.run("images"));
  const pod = await story.phase("crictl runp", () => crictl.run("runp", podPath));
  const container = await story.phase("crictl create", () => crictl.run("create", pod, containerPath, podPath));
  await story.phase("crictl start", () => crictl.run("start", container));
  story.show(await crictl.run("ps"));

  const { status } = await crictl.json<{ status: { network: { ip: string } } }>("inspectp", "-o", "json", pod);
  const { ip } = status.network;
  const page = await story.phase(`http://${ip}/ from the host`, () => waitFor("the web server in the pod", () => get(`http://${ip}/`)));
  story.show(page.trim());
  story.show(
    await story.phase("crictl exec -s", () => crictl.run("exec", "-s", container, "/bin/sh", "-c", "hostname; ip -4 -o addr show eth0")),
  );
  story.show(await story.phase("crictl logs", () => crictl.run("logs", container)));
  story.show(await story.phase("crictl stats (two samples, a second apart)", () => crictl.run("stats")));
  console.log(drawPicture(await lookAt(node, { podId: pod, containerId: container, ip })));

  await story.phase("crictl stop", () => crictl.run("stop", "--timeout", "5", container));
  story.show(await crictl.run("logs", "--tail", "1", container));
  await story.phase("crictl rm, stopp, rmp", async () => {
    await crictl.run("rm", container);
    await crictl.run("stopp", pod);
    await crictl.run("rmp", pod);
  });
  await story.phase("crictl rmi", () => crictl.run("rmi", reference));
}

function podConfig(node: Node) {
  return {
    metadata: { name: "demo", namespace: "default", uid: "demo-uid", attempt: 0 },
    hostname: "demo-pod",
    log_directory: join(node.prefix.logsDir, "demo"),
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
