/**
 * run.ts [--driver cgroupfs|systemd]... [--scenario NAME]... [--name PATTERN]: boots a machine whose only cgroup hierarchy is v2 and runs scenarios
 * in it, flat: once without systemd, under the cgroupfs driver, and once with systemd as pid 1, under its. The last line sums up.
 */
import { cp, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { mustRun } from "../harness/command.ts";
import { runMain } from "../harness/main.ts";
import { repositoryDir } from "../harness/settings.ts";
import { makeInitrd } from "./initrd.ts";
import { runMachine } from "./machine.ts";

type Driver = "cgroupfs" | "systemd";

/** Emulated, a machine runs a program some ten times slower than the host does; its timeouts are longer by this. */
const slowness = 8;
/** Life cycle, ExecSync, OOM, limits and statistics, kill -9; each with its leak check. */
const usualScenarios = ["crictl-session", "exec", "exits", "resources", "restart"];
const timeoutMs = 60 * 60_000;
const outputDir = join(repositoryDir, "build", "cgroup2");

interface Choice {
  readonly scenarios: readonly string[];
  /** Of the tests' names; empty: all. */
  readonly name: string;
}

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

const unit = (script: string) => `[Unit]
Description=The tests of a node with cgroup v2
Requires=dbus.socket
After=basic.target dbus.socket
[Service]
Type=oneshot
ExecStart=${script}
StandardOutput=file:/dev/hvc0
StandardError=inherit
Delegate=no
`;

/** Of no use in the machine, and slow under emulation. systemd takes an empty unit for one that is masked. */
const maskedUnits = ["kmod-static-nodes", "systemd-binfmt", "systemd-modules-load", "systemd-random-seed", "systemd-sysctl"].concat([
  "systemd-sysusers",
  "systemd-timesyncd",
  "systemd-tmpfiles-setup",
  "systemd-tmpfiles-setup-dev",
  "systemd-update-utmp",
]);

async function main(): Promise<void> {
  const words = { type: "string", multiple: true } as const;
  const { values } = parseArgs({ options: { driver: words, scenario: words, name: { type: "string" } } });
  const choice = { scenarios: values.scenario ?? usualScenarios, name: values.name ?? "" };
  const drivers = (values.driver ?? ["cgroupfs", "systemd"]).map(checkedDriver);
  await mustRun(join(import.meta.dirname, "kernel.sh"), []);
  const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
  for (const driver of drivers) {
    const found = await runTests(driver, choice);
    for (const key of ["passed", "failed", "skipped"] as const) totals[key] += found[key];
  }
  console.log(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
  process.exitCode = totals.failed > 0 ? 1 : 0;
}

function checkedDriver(name: string): Driver {
  if (name === "cgroupfs" || name === "systemd") return name;
  throw new Error(`--driver is '${name}': want cgroupfs or systemd`);
}

async function runTests(driver: Driver, choice: Choice): Promise<Totals> {
  console.log(`\n=== a machine with cgroup v2, ${driver} driver`);
  const dir = await mkdtemp(join(tmpdir(), "ae2e-cgroup2-"));
  try {
    const initrdPath = join(dir, "initrd");
    const kernelDir = join(outputDir, "kernel");
    const modulesDir = await realpath(join(kernelDir, "modules"));
    await writeFile(
      initrdPath,
      await makeInitrd({ modulesDir, initPath: join(guestDir, "init.sh"), overlay: overlay(driver, choice, modulesDir) }),
    );
    let totals: Totals | undefined;
    const onLine = (line: string) => {
      console.log(line);
      totals = parseTotals(line) ?? totals;
    };
    const parts = { dir, kernelPath: join(kernelDir, "vmlinuz"), initrdPath, sharedDirs: [repositoryDir, cacheDir()] };
    await runMachine(parts, onLine, timeoutMs);
    if (totals === undefined)
      throw new Error(`the machine ended without a result; its console:\n${await readFile(join(dir, "console.log"), "utf8")}`);
    return totals;
  } finally {
    await mkdir(outputDir, { recursive: true });
    await cp(join(dir, "console.log"), join(outputDir, `console-${driver}.log`)).catch(() => {});
    await rm(dir, { recursive: true, force: true });
  }
}

const guestDir = join(import.meta.dirname, "guest");

function cacheDir(): string {
  return process.env["AURAE_CRI_CACHE"] ?? join(process.env["HOME"] ?? "/root", ".cache/aurae-cri");
}

function overlay(driver: Driver, { scenarios, name }: Choice, modulesDir: string): Record<string, string> {
  const settings = {
    MODULES: modulesDir,
    INIT: driver === "systemd" ? "/lib/systemd/systemd" : join(guestDir, "pid1.sh"),
    REPOSITORY: repositoryDir,
    CACHE: cacheDir(),
    SLOWNESS: String(slowness),
    FILES: scenarios.map((scenario) => `e2e/scenarios/${scenario}.e2e.ts`).join(" "),
    NAME: name,
  };
  return {
    "etc/aurae-cgroup2": Object.entries(settings)
      .map(([key, value]) => `${key}='${value.replaceAll("'", "'\\''")}'\n`)
      .join(""),
    "etc/systemd/system/aurae-cgroup2.service": unit(join(guestDir, "tests.sh")),
    ...Object.fromEntries(maskedUnits.map((masked) => [`etc/systemd/system/${masked}.service`, ""])),
    "etc/systemd/system/default.target": "[Unit]\nRequires=aurae-cgroup2.service\n",
  };
}

function parseTotals(line: string): Totals | undefined {
  const [, passed, failed, skipped] = /^(\d+) passed, (\d+) failed, (\d+) skipped\s*$/.exec(line) ?? [];
  return passed === undefined ? undefined : { passed: Number(passed), failed: Number(failed), skipped: Number(skipped) };
}

await runMain(main);
