import type { Sight } from "./look.ts";

/** Namespaces that the containers of a pod share. */
const ofThePod = ["net", "ipc", "uts"];

/** What ran where, as a drawing of boxes. */
export function drawPicture(sight: Sight): string {
  const shared = ofThePod.filter((name) => name in sight.namespaces);
  const own = Object.keys(sight.namespaces).filter((name) => !shared.includes(name));
  const inodes = (names: readonly string[]) => names.map((name) => `${name} ${sight.namespaces[name]}`).join(", ");
  const supervisors = sight.ancestors.filter((process) => process.pid !== sight.daemon.pid);
  const container = box([
    `container ${sight.containerId.slice(0, 13)}: pid ${sight.container.pid} on the host`,
    sight.container.name,
    `own namespaces: ${inodes(own)}`,
    `root file system: ${sight.rootMount}${sight.layerCount > 0 ? ` over ${sight.layerCount} read-only layer(s)` : ""}`,
    `cgroup: ${shorten(sight.cgroup)}`,
  ]);
  const pod = box([
    `pod ${sight.podId.slice(0, 13)}: address ${sight.ip} on ${sight.bridge}`,
    `the pod's namespaces: ${inodes(shared)}`,
    "",
    ...container,
  ]);
  const lines = [
    "crictl",
    "  │  CRI, gRPC on a unix socket",
    "  ▼",
    ...box([`pid ${sight.daemon.pid}: ${sight.daemon.name}   (the daemon: everything CRI; may be killed at any time)`]),
    "  │  gRPC on a unix socket of the pod",
    "  ▼",
    ...supervisors.flatMap((process) => [
      ...box([`pid ${process.pid}: ${process.name}   (one per pod; outlives the daemon, writes the log)`]),
      "  │  parent of",
      "  ▼",
    ]),
    ...pod,
  ];
  return `\n${lines.map((line) => `   ${line}`).join("\n")}`;
}

function box(lines: readonly string[]): string[] {
  const width = Math.max(...lines.map((line) => line.length));
  return [`┌${"─".repeat(width + 2)}┐`, ...lines.map((line) => `│ ${line.padEnd(width)} │`), `└${"─".repeat(width + 2)}┘`];
}

/** Long ids say little in a picture. */
function shorten(text: string): string {
  return text.replaceAll(/([0-9a-f]{13})[0-9a-f]{51}/g, "$1…");
}
