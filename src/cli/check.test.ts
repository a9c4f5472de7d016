import assert from "node:assert/strict";
import { mkdir, mkdtempDisposable, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";

import type { VirtualizationReport } from "../runtime/ports.ts";
import { type Check, type CheckOptions, check, renderChecks } from "./check.ts";
import type { VirtualizationProbe } from "./virtualization-probe.ts";

const signal = new AbortController().signal;

interface Scene extends AsyncDisposable {
  readonly dir: string;
  readonly options: CheckOptions;
}

async function scene(changes: Partial<CheckOptions> = {}): Promise<Scene> {
  const temporary = await mkdtempDisposable(join(tmpdir(), "check-"));
  const dir = temporary.path;
  const options: CheckOptions = {
    root: join(dir, "root", "not", "there"),
    state: join(dir, "state"),
    listen: join(dir, "cri.sock"),
    cni: { confDir: join(dir, "net.d"), binDirs: [join(dir, "bin")] },
    auraed: { path: join(dir, "auraed") },
    vm: { accelerator: "auto" },
    placement: { default: "prefer-vm" },
    cgroup: { driver: "auto" },
    ...changes,
  };
  return { dir, options, [Symbol.asyncDispose]: () => temporary[Symbol.asyncDispose]() };
}

function probe(report: VirtualizationReport | undefined, changes: Partial<VirtualizationProbe> = {}): VirtualizationProbe {
  return {
    qemuPath: "/bin/true",
    guestFiles: async () => ({ dir: "/guest", versions: "kernel 1, initrd 2" }),
    keptVerdict: async () => report,
    trialBoot: async () => {
      throw new Error("a guest was booted that nobody asked for");
    },
    ...changes,
  };
}

async function checksOf(options: CheckOptions, virtualization: VirtualizationProbe = probe(UNAVAILABLE), full = false) {
  const { exitCode, stdout } = await check({ full, json: true }, options, { virtualization, signal });
  const { checks } = JSON.parse(stdout) as { checks: readonly Check[] };
  return { exitCode, named: (name: string) => checks.find((each) => each.name === name) };
}

const UNAVAILABLE: VirtualizationReport = { state: "unavailable", message: "no guest boots", consoleTail: "Booting\npanic\u001b[2J" };

suite("check", () => {
  test("finds what is missing, with a fix each, and fails", async () => {
    await using at = await scene();
    const { exitCode, named } = await checksOf(at.options);
    assert.equal(exitCode, 1);
    for (const name of ["CNI configuration", "auraed"]) {
      assert.equal(named(name)?.status, "failed", name);
      assert.notEqual(named(name)?.fix ?? "", "", name);
    }
    assert.match(named("CNI configuration")?.fix ?? "", new RegExp(`> ${at.options.cni.confDir}/10-pods\\.conflist$`));
    assert.match(named("disk space")?.found ?? "", new RegExp(`free at ${at.dir}$`));
  });

  test("the network that a fix writes is a valid one, whose plugins are named when they are missing", async () => {
    await using at = await scene();
    const { named } = await checksOf(at.options);
    const [, json = ""] = /echo '(.*)' > /.exec(named("CNI configuration")?.fix ?? "") ?? [];
    await mkdir(at.options.cni.confDir);
    await writeFile(join(at.options.cni.confDir, "10-pods.conflist"), json);
    const after = await checksOf(at.options);
    assert.equal(after.named("CNI configuration")?.status, "ok");
    assert.match(after.named("CNI plugins")?.found ?? "", /^bridge, host-local, portmap not found in /);

    await mkdir(join(at.dir, "bin"));
    for (const plugin of ["bridge", "host-local", "portmap"]) await writeFile(join(at.dir, "bin", plugin), "", { mode: 0o755 });
    assert.equal((await checksOf(at.options)).named("CNI plugins")?.status, "ok");
  });

  test("an auraed of another version is worth a look", async () => {
    await using at = await scene();
    await writeFile(at.options.auraed.path, "#!/bin/sh\necho auraed 99.0.0\n", { mode: 0o755 });
    const { named } = await checksOf(at.options);
    assert.equal(named("auraed")?.status, "warn");
    assert.match(named("auraed")?.found ?? "", /version 99\.0\.0/);
  });

  test("a socket that somebody else serves", async () => {
    await using at = await scene();
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(at.options.listen, resolve));
    try {
      const { named } = await checksOf(at.options);
      assert.equal(named("socket")?.status, "failed");
      assert.match(named("socket")?.found ?? "", /is in use/);
    } finally {
      server.close();
    }
  });
});

suite("check of virtualization", () => {
  test("where it is off nothing is looked at", async () => {
    await using at = await scene({ vm: { accelerator: "off" } });
    const { named } = await checksOf(at.options, probe(UNAVAILABLE));
    assert.equal(named("virtualization")?.status, "ok");
    assert.equal(named("QEMU"), undefined);
  });

  for (const [policy, status] of [
    ["prefer-vm", "warn"],
    ["require-vm", "failed"],
  ] as const) {
    test(`what is lacking is '${status}' under ${policy}, with the console`, async () => {
      await using at = await scene({ placement: { default: policy } });
      const missing = async () => {
        throw new Error("vmlinux: not there");
      };
      const { named } = await checksOf(at.options, probe(UNAVAILABLE, { qemuPath: "/no/qemu", guestFiles: missing }));
      assert.deepEqual([named("QEMU")?.status, named("guest files")?.status, named("virtualization")?.status], [status, status, status]);
      assert.match(named("QEMU")?.fix ?? "", /apt-get install .*qemu-system/);
      assert.match(named("guest files")?.found ?? "", /vmlinux/);
      assert.match(named("virtualization")?.detail ?? "", /panic/);
    });
  }

  test("no verdict yet, a good one, and the self-test", async () => {
    await using at = await scene({ vm: { accelerator: "tcg" } });
    const none = await checksOf(at.options, probe(undefined));
    assert.match(none.named("virtualization")?.fix ?? "", /check --full/);
    assert.equal(none.named("/dev/kvm"), undefined);
    const good: VirtualizationReport = { state: "available", accelerator: "tcg", message: "" };
    assert.equal((await checksOf(at.options, probe(good))).named("virtualization")?.status, "ok");
    const boots = probe(undefined, { trialBoot: async () => ({ report: good, firstAnswerMs: 950.4 }) });
    const full = await checksOf(at.options, boots, true);
    assert.equal(full.named("virtualization")?.status, "ok");
    assert.match(full.named("virtualization")?.found ?? "", /first answer came after 950 ms.*tcg/);
  });
});

test("the page for a person: fixes below what they mend, nothing that moves the cursor", () => {
  const text = renderChecks([
    { name: "root", status: "ok", found: "running as root" },
    { name: "virtualization", status: "warn", found: "no guest boots", fix: "do this", detail: "Booting\npanic\u001b[2J\n" },
  ]);
  assert.equal(
    text,
    `ok      root               running as root
warn    virtualization     no guest boots
        fix: do this
        | Booting
        | panic\\u001b[2J

1 ok, 1 to look at, 0 failed
`,
  );
});
