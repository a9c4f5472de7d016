import { once } from "node:events";
import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";

import type { Node } from "../harness/node.ts";
import { freePort } from "../harness/ports.ts";
import type { StaticPod } from "./kubelet.ts";

/** What the pods use of the host. */
export interface HostSide extends Disposable {
  /** A volume as the kubelet makes it of a ConfigMap: `color` is a link through `..data` to a file of one version. */
  readonly config: ConfigVolume;
  /** Where the pods leave words for the test. */
  readonly wordsDir: string;
  /** A unix socket on which somebody listens. */
  readonly socketPath: string;
  /** For the pod in the host's network. */
  readonly port: number;
}

export async function createHostSide(node: Node): Promise<HostSide> {
  const dir = join(node.prefix.dir, "host");
  const wordsDir = join(dir, "words");
  await mkdir(wordsDir, { recursive: true });
  const socketPath = join(dir, "service.sock");
  const server = createServer((client) => client.end("from the service\n")).listen(socketPath);
  await once(server, "listening");
  const config = await ConfigVolume.create(join(dir, "config"));
  return { config, wordsDir, socketPath, port: await freePort(), [Symbol.dispose]: () => void server.close() };
}

/** Files that change all at once, by the rename of a link. */
export class ConfigVolume {
  readonly dir: string;
  #version = 0;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async create(dir: string): Promise<ConfigVolume> {
    const volume = new ConfigVolume(dir);
    await mkdir(dir);
    await volume.write({ color: "blue" });
    await symlink("..data/color", join(dir, "color"));
    return volume;
  }

  async write(files: Readonly<Record<string, string>>): Promise<void> {
    const version = `..version-${++this.#version}`;
    await mkdir(join(this.dir, version));
    for (const [name, content] of Object.entries(files)) await writeFile(join(this.dir, version, name), content);
    await symlink(version, join(this.dir, "..data_tmp"));
    await rename(join(this.dir, "..data_tmp"), join(this.dir, "..data"));
  }
}

/** The pods of the tests. Each name says what its pod is about. */
export function staticPods(node: Node, host: HostSide): readonly StaticPod[] {
  const image = node.registry.reference("busybox");
  const container = (name: string, script: string, rest: object = {}) => ({ name, image, command: ["/bin/sh", "-c", script], ...rest });
  const pod = (name: string, spec: object): StaticPod => ({
    metadata: { name, namespace: "e2e", labels: { app: name } },
    spec: { terminationGracePeriodSeconds: 10, ...spec },
  });
  const words = { name: "words", hostPath: { path: host.wordsDir, type: "Directory" } };
  const socket = { name: "service", hostPath: { path: host.socketPath, type: "Socket" } };
  const socketMount = { volumeMounts: [{ name: "service", mountPath: "/run/service.sock" }] };
  return [
    pod("web", webSpec(host, container, words)),
    pod("finishes", {
      restartPolicy: "OnFailure",
      containers: [container("main", "printf 'all done' >/dev/termination-log")],
    }),
    pod("crashes-once", {
      volumes: [{ name: "state", emptyDir: {} }],
      containers: [
        container(
          "main",
          `${sleeper}; if mkdir /state/been 2>/dev/null; then echo 'the first run'; printf 'no luck' >/dev/termination-log; exit 7; fi; echo 'the second run'; rest`,
          {
            volumeMounts: [{ name: "state", mountPath: "/state" }],
          },
        ),
      ],
    }),
    pod("alive", {
      containers: [
        container("main", `${sleeper}; touch /tmp/alive; rest`, {
          livenessProbe: { exec: { command: ["/bin/cat", "/tmp/alive"] }, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 5 },
        }),
      ],
    }),
    pod("agent", {
      hostNetwork: true,
      hostPID: true,
      containers: [
        container("main", `mkdir /tmp/www; echo 'the agent' >/tmp/www/index.html; exec httpd -f -p 127.0.0.1:${host.port} -h /tmp/www`, {
          readinessProbe: { httpGet: { host: "127.0.0.1", port: host.port, path: "/" }, periodSeconds: 1 },
        }),
      ],
    }),
    pod("needs-the-host", { volumes: [socket], containers: [container("main", `${sleeper}; rest`, socketMount)] }),
    pod("needs-the-host-never", {
      restartPolicy: "Never",
      volumes: [socket],
      containers: [container("first", `${sleeper}; rest`), container("second", `${sleeper}; rest`, socketMount)],
    }),
  ];
}

/** `rest` waits for ever, and ends at SIGTERM. */
const sleeper = "trap 'exit 0' TERM; rest() { while :; do sleep 3600 & wait $!; done; }";

type Container = (name: string, script: string, rest?: object) => object;

/** Init containers in order, one of which stays; a server whose readiness is asked over HTTP; every kind of small volume. */
function webSpec(host: HostSide, container: Container, words: object): object {
  const www = { name: "www", mountPath: "/www" };
  const fieldRef = (fieldPath: string) => ({ fieldPath });
  return {
    hostAliases: [{ ip: "192.0.2.7", hostnames: ["alias.example"] }],
    volumes: [
      words,
      { name: "config", hostPath: { path: host.config.dir, type: "Directory" } },
      { name: "www", emptyDir: {} },
      { name: "memory", emptyDir: { medium: "Memory" } },
      { name: "about", downwardAPI: { items: [{ path: "labels", fieldRef: fieldRef("metadata.labels") }] } },
    ],
    initContainers: [
      container("first", "echo first >/www/order", { volumeMounts: [www] }),
      container("beside", `${sleeper}; echo beside >>/www/order; rest`, {
        restartPolicy: "Always",
        volumeMounts: [www],
        startupProbe: { exec: { command: ["/bin/grep", "beside", "/www/order"] }, periodSeconds: 1 },
      }),
      container("last", "echo last >>/www/order; echo hello >/www/index.html", { volumeMounts: [www] }),
    ],
    containers: [
      container("server", "trap 'sleep 1; echo gone >/words/web; exit 0' TERM; echo serving; httpd -f -p 80 -h /www & wait $!", {
        env: [{ name: "POD_IP", valueFrom: { fieldRef: fieldRef("status.podIP") } }],
        resources: { requests: { cpu: "50m", memory: "32Mi" }, limits: { cpu: "1", memory: "64Mi" } },
        volumeMounts: [
          www,
          { name: "words", mountPath: "/words" },
          { name: "config", mountPath: "/config", readOnly: true },
          { name: "memory", mountPath: "/memory" },
          { name: "about", mountPath: "/about" },
        ],
        readinessProbe: { httpGet: { port: 80, path: "/index.html" }, periodSeconds: 1, failureThreshold: 1 },
        livenessProbe: { exec: { command: ["/bin/true"] }, periodSeconds: 2, timeoutSeconds: 10 },
      }),
      container("reader", `${sleeper}; i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; echo to stderr >&2; rest`),
    ],
  };
}
