import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The runtimes that the scenarios can drive. containerd is the reference: the suite is proven on it before it judges ours. */
export type RuntimeKind = "aurae-cri" | "containerd";

export const repositoryDir = join(import.meta.dirname, "..", "..");

/** The runtime under test, from `AURAE_CRI_E2E_RUNTIME`. */
export function runtimeUnderTest(): RuntimeKind {
  const kind = process.env["AURAE_CRI_E2E_RUNTIME"] ?? "aurae-cri";
  if (kind === "aurae-cri" || kind === "containerd") return kind;
  throw new Error(`AURAE_CRI_E2E_RUNTIME is '${kind}': want aurae-cri or containerd`);
}

/** `both`: a node that runs either, by the pod's handler. */
export type PodMode = "flat" | "microvm" | "both";

/** Where the pods of our runtime run, from `AURAE_CRI_E2E_PODS`. A microVM runs under software emulation: test hosts cannot be trusted to virtualize. */
export function podsUnderTest(): PodMode {
  const mode = process.env["AURAE_CRI_E2E_PODS"] ?? "flat";
  if (mode === "flat" || mode === "microvm") return mode;
  throw new Error(`AURAE_CRI_E2E_PODS is '${mode}': want flat or microvm`);
}

/** For the `skip` of a test that cannot apply to a pod in a guest: the reason is printed. */
export function notInGuest(reason: string): string | false {
  return podsUnderTest() === "microvm" ? `in a microVM: ${reason}` : false;
}

/** Whether the harness calls the runtime through the kubelet's client library, from `AURAE_CRI_E2E_CLIENT`. */
export function goClientUnderTest(): boolean {
  const client = process.env["AURAE_CRI_E2E_CLIENT"] ?? "ours";
  if (client === "ours" || client === "go") return client === "go";
  throw new Error(`AURAE_CRI_E2E_CLIENT is '${client}': want ours or go`);
}

/** How many times slower than a usual host this one is, from `AURAE_CRI_E2E_SLOWNESS`: every wait may take so many times longer. */
export function slowness(): number {
  const factor = Number(process.env["AURAE_CRI_E2E_SLOWNESS"] ?? 1);
  if (factor >= 1) return factor;
  throw new Error(`AURAE_CRI_E2E_SLOWNESS is '${process.env["AURAE_CRI_E2E_SLOWNESS"]}': want a number of at least 1`);
}

/** The driver that the daemon under test chooses by itself: systemd's where that is pid 1. */
export function cgroupDriver(): "cgroupfs" | "systemd" {
  return existsSync("/run/systemd/system") ? "systemd" : "cgroupfs";
}

/** Whether prefixes of finished runs are kept for a look at their logs (`AURAE_CRI_E2E_KEEP=1`). */
export function keepsPrefixes(): boolean {
  return process.env["AURAE_CRI_E2E_KEEP"] === "1";
}

/** Whether loads are as heavy as what is promised (`AURAE_CRI_E2E_SOAK=1`, `make soak`), and not a dose for every run. */
export function isSoak(): boolean {
  return process.env["AURAE_CRI_E2E_SOAK"] === "1";
}

/** Where `tools/peers.sh` links the peers: `bin/` with crictl, containerd, its shim and runc, and `cni/` with the plugins. */
export function peersDir(): string {
  return process.env["AURAE_CRI_E2E_PEERS"] ?? join(repositoryDir, "build", "peers");
}

/**
 * `AURAE_CRI_E2E_EXCLUSIVE_HOST=1`: nobody else uses this host meanwhile, so everything new counts as a leak. Without it only what bears a
 * mark of the runtime under test does: tests run beside other tests.
 */
export function hostIsShared(): boolean {
  return process.env["AURAE_CRI_E2E_EXCLUSIVE_HOST"] !== "1";
}

/** The environment of a daemon or tool: ours, with the peers first in PATH, and `extra`. */
export function childEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const path = [join(peersDir(), "bin"), process.env["PATH"] ?? "", "/usr/sbin", "/sbin"].join(delimiter);
  return { ...process.env, PATH: path, ...extra };
}
