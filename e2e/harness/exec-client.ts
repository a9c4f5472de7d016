import type { Container } from "./container.ts";
import { unary } from "./cri-client.ts";
import type { Node } from "./node.ts";
import { SpdyClient } from "./spdy-client.ts";

/** What a client of exec is told of a command that succeeded. */
const SUCCESS = /"status":\s*"Success"/;
/** More than pipes, sockets and windows hold on the way to a process that does not read. */
const STALLED_BYTES = 4 * 1024 * 1024;

/** A client of exec for `/bin/true`: Exec, the connection and its streams, the exit status. Throws unless it is a success. */
export async function streamTrue(node: Node, container: Container): Promise<void> {
  const { runtime } = node.clients;
  const streams = { stdin: false, stdout: true, stderr: true, tty: false };
  const { url } = await unary(runtime, runtime.exec, { containerId: container.id, cmd: ["/bin/true"], ...streams });
  using client = await SpdyClient.open(url, "v4.channel.k8s.io");
  let status = "";
  const error = client.openStream({ streamtype: "error" }, (bytes) => (status += bytes.toString()));
  for (const streamtype of ["stdout", "stderr"]) client.openStream({ streamtype }, () => {});
  // Servers made of the Kubernetes libraries end all streams with a reset.
  await error.ended.catch(() => {});
  if (!SUCCESS.test(status)) throw new Error(`exec of /bin/true in ${node.kind}: '${status}'`);
}

/** `count` processes whose stdin is full, for as long as the result is not disposed. */
export async function stallStdins(node: Node, container: Container, count: number): Promise<Disposable> {
  using stack = new DisposableStack();
  const bytes = Buffer.alloc(STALLED_BYTES);
  for (let index = 0; index < count; index++) {
    const { runtime } = node.clients;
    const streams = { stdin: true, stdout: true, stderr: false, tty: false };
    const cmd = ["/bin/sh", "-c", "echo; exec sleep 3600"];
    const { url } = await unary(runtime, runtime.exec, { containerId: container.id, cmd, ...streams });
    const client = stack.use(await SpdyClient.open(url, "v4.channel.k8s.io"));
    const started = Promise.withResolvers<void>();
    client.openStream({ streamtype: "error" }, () => {});
    const stdin = client.openStream({ streamtype: "stdin" }, () => {});
    client.openStream({ streamtype: "stdout" }, () => started.resolve()).ended.catch((error: unknown) => started.reject(error));
    await started.promise;
    // Never taken to its end.
    void stdin.write(bytes).catch(() => {});
  }
  return stack.move();
}
