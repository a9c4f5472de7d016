import { openFailure, virtualizationExtension } from "../host/node-facts.ts";
import { run } from "../host/process.ts";
import { messageOf } from "../lib/coded-error.ts";
import { RUNTIME_VERSION } from "../lib/version.ts";
import type { VirtualizationReport } from "../runtime/ports.ts";
import type { CheckModules, CheckOptions, CheckResult, Examination } from "./check.ts";
import type { VirtualizationProbe } from "./virtualization-probe.ts";

const VERSION_TIMEOUT_MS = 10_000;

export async function checkAuraed(path: string, signal: AbortSignal): Promise<CheckResult> {
  const fix = "make build in a checkout, or install aurae-cri anew; auraed.path names another place";
  try {
    const version = (await firstLine(path, signal)).replace(/^auraed /, "");
    if (version === RUNTIME_VERSION) return { status: "ok", found: `${path}, version ${version}` };
    return { status: "warn", found: `${path} is version ${version}, this program ${RUNTIME_VERSION}`, fix };
  } catch (error) {
    return { status: "failed", found: messageOf(error), fix };
  }
}

async function firstLine(file: string, signal: AbortSignal): Promise<string> {
  const { exitCode, stdout, stderr } = await run({ file, args: ["--version"] }, { signal, timeoutMs: VERSION_TIMEOUT_MS });
  if (exitCode !== 0) throw new Error(`${file} --version failed: ${stderr.trim().slice(0, 512)}`);
  return stdout.split("\n", 1)[0] ?? "";
}

/** What a microVM needs. Where no pod may become one, nothing of it is looked at. */
export function vmChecks({ full }: { readonly full: boolean }, options: CheckOptions, modules: CheckModules): readonly Examination[] {
  const { accelerator } = options.vm;
  const { virtualization: probe, signal } = modules;
  if (accelerator === "off") {
    const found = 'not looked at: vm.accelerator is "off", every pod is flat';
    return [{ name: "virtualization", look: async () => ({ status: "ok", found }) }];
  }
  // A node that prefers microVMs makes flat pods without; one that requires them makes none.
  const lacking = options.placement.default === "require-vm" ? "failed" : "warn";
  return [
    { name: "QEMU", look: () => checkQemu(probe, lacking, signal) },
    { name: "guest files", look: () => checkGuestFiles(probe, lacking, signal) },
    ...(accelerator === "tcg" ? [] : [{ name: "/dev/kvm", look: () => checkKvm(lacking) }]),
    { name: "virtualization", look: () => (full ? bootGuest(probe, lacking, signal) : checkVerdict(probe, lacking, signal)) },
  ];
}

type Lacking = "warn" | "failed";

async function checkQemu({ qemuPath }: VirtualizationProbe, lacking: Lacking, signal: AbortSignal): Promise<CheckResult> {
  try {
    return { status: "ok", found: `${qemuPath}, ${await firstLine(qemuPath, signal)}` };
  } catch (error) {
    const packageName = process.arch === "arm64" ? "qemu-system-arm" : "qemu-system-x86";
    return { status: lacking, found: messageOf(error), fix: `apt-get install -y --no-install-recommends ${packageName}` };
  }
}

async function checkGuestFiles(probe: VirtualizationProbe, lacking: Lacking, signal: AbortSignal): Promise<CheckResult> {
  try {
    const { dir, versions } = await probe.guestFiles({ signal });
    return { status: "ok", found: `${versions}, in ${dir}` };
  } catch (error) {
    return { status: lacking, found: messageOf(error), fix: "make guest in a checkout, or install aurae-cri anew" };
  }
}

/** That it opens proves little, that it does not proves all: the trial boot has the last word. */
async function checkKvm(lacking: Lacking): Promise<CheckResult> {
  const failure = await openFailure("/dev/kvm");
  if (failure === undefined) return { status: "ok", found: "can be opened; whether a guest boots is told by the trial boot" };
  const found = `cannot be opened (${failure})`;
  if (failure !== "ENOENT") return { status: lacking, found, fix: "run as root, with access to /dev/kvm" };
  const extension = await virtualizationExtension();
  if (extension !== undefined) return { status: lacking, found, fix: `modprobe ${extension === "vmx" ? "kvm_intel" : "kvm_amd"}` };
  const fix = "switch virtualization on in the firmware; on a virtual machine, nested virtualization in its hypervisor";
  return { status: lacking, found: `${found}, and the processor shows no extension for it`, fix };
}

async function checkVerdict(probe: VirtualizationProbe, lacking: Lacking, signal: AbortSignal): Promise<CheckResult> {
  const verdict = await probe.keptVerdict({ signal });
  if (verdict === undefined) {
    return { status: "warn", found: "no trial boot of these parts has been made since the node booted", fix: "aurae-cri check --full" };
  }
  return resultOf(verdict, lacking, "by the kept verdict: ");
}

async function bootGuest(probe: VirtualizationProbe, lacking: Lacking, signal: AbortSignal): Promise<CheckResult> {
  const { report, firstAnswerMs } = await probe.trialBoot({ signal });
  const took = firstAnswerMs === undefined ? "" : `the guest's first answer came after ${Math.round(firstAnswerMs)} ms; `;
  return resultOf(report, lacking, took);
}

function resultOf(report: VirtualizationReport, lacking: Lacking, prefix: string): CheckResult {
  switch (report.state) {
    case "available":
      return { status: "ok", found: `${prefix}guests boot with ${report.accelerator}` };
    case "unavailable": {
      const fix = "what the message asks for, then aurae-cri check --full; pods that need no microVM run flat meanwhile";
      return {
        status: lacking,
        found: `${prefix}${report.message}`,
        fix,
        ...(report.consoleTail === "" ? {} : { detail: report.consoleTail }),
      };
    }
    case "unknown":
      return { status: lacking, found: `${prefix}the trial boot gave no verdict`, fix: "aurae-cri check --full" };
  }
}
