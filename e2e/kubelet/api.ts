import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { text } from "node:stream/consumers";

import { WebSocket } from "ws";

/** As much of a v1 Pod as the tests look at. */
export interface PodObject {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly uid: string };
  readonly status: {
    readonly phase?: string;
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly initContainerStatuses?: readonly ContainerStatusObject[];
    readonly containerStatuses?: readonly ContainerStatusObject[];
  };
}

export interface ContainerStatusObject {
  readonly name: string;
  readonly ready: boolean;
  readonly restartCount: number;
  /** `aurae://ID` */
  readonly containerID?: string;
  readonly state: ContainerStateObject;
  readonly lastState: ContainerStateObject;
}

interface ContainerStateObject {
  readonly running?: { readonly startedAt: string };
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly terminated?: { readonly exitCode: number; readonly reason?: string; readonly message?: string };
}

export interface ExecOutcome {
  readonly stdout: string;
  readonly stderr: string;
  /** The last channel: a v1 Status. */
  readonly status: { readonly status: string; readonly message?: string; readonly details?: unknown };
}

const channels = { stdin: 0, stdout: 1, stderr: 2, error: 3 } as const;

/** The HTTPS server of a kubelet on the loopback. Its certificate is one that it made itself. */
export class KubeletApi {
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  async pods(): Promise<readonly PodObject[]> {
    const { items } = JSON.parse(await this.get("/pods")) as { readonly items: readonly PodObject[] | null };
    return items ?? [];
  }

  /** The body of a 200; anything else is an error that carries the answer. */
  async get(path: string, method = "GET"): Promise<string> {
    const asked = request({ host: "127.0.0.1", port: this.#port, path, method, rejectUnauthorized: false, agent: false });
    asked.end();
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    const body = await text(response);
    if (response.statusCode !== 200) throw new Error(`${method} ${path}: ${response.statusCode} ${body}`);
    return body;
  }

  async logs(pod: PodObject, container: string, query = ""): Promise<string> {
    return await this.get(`/containerLogs/${pathOf(pod)}/${container}${query === "" ? "" : `?${query}`}`);
  }

  /** ExecSync: what the command printed. */
  async run(pod: PodObject, container: string, command: readonly string[]): Promise<string> {
    return await this.get(`/run/${pathOf(pod)}/${container}?cmd=${encodeURIComponent(command.join(" "))}`, "POST");
  }

  /** What `sh -c SCRIPT` prints; streamed, because `run` cuts its command at blanks. */
  async shell(pod: PodObject, container: string, script: string): Promise<string> {
    const { stdout, stderr, status } = await this.exec(pod, container, ["/bin/sh", "-c", script]);
    if (status.status !== "Success") throw new Error(`'${script}' in ${pod.metadata.name}: ${JSON.stringify(status)} ${stderr}`);
    return stdout.trimEnd();
  }

  /** Exec over a WebSocket. `v4` is proxied to the runtime as it is; what comes as `v5` the kubelet translates to SPDY. */
  async exec(
    pod: PodObject,
    container: string,
    command: readonly string[],
    options: { readonly protocol?: "v4" | "v5"; readonly stdin?: string } = {},
  ): Promise<ExecOutcome> {
    const query = new URLSearchParams([...command.map((word) => ["command", word]), ["output", "1"], ["error", "1"]]);
    if (options.stdin !== undefined) query.append("input", "1");
    const url = `wss://127.0.0.1:${this.#port}/exec/${pathOf(pod)}/${container}?${query.toString()}`;
    const protocol = options.protocol ?? "v4";
    const socket = new WebSocket(url, [`${protocol}.channel.k8s.io`], { rejectUnauthorized: false });
    const received = collect(socket);
    await once(socket, "open");
    if (options.stdin !== undefined) {
      socket.send(Buffer.from([channels.stdin, ...Buffer.from(options.stdin)]));
      // Only v5 can close it.
      if (protocol === "v5") socket.send(Buffer.from([255, channels.stdin]));
    }
    await once(socket, "close");
    return { stdout: received(channels.stdout), stderr: received(channels.stderr), status: JSON.parse(received(channels.error)) };
  }
}

/** Keeps what each channel brought. */
function collect(socket: WebSocket): (channel: number) => string {
  const parts: Buffer[] = [];
  socket.on("message", (data: Buffer) => parts.push(data));
  return (channel) => Buffer.concat(parts.filter((part) => part[0] === channel).map((part) => part.subarray(1))).toString();
}

function pathOf({ metadata }: PodObject): string {
  return `${metadata.namespace}/${metadata.name}`;
}
