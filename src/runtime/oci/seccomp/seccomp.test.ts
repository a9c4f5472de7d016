import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { buildOciSpec } from "../spec.ts";
import { type InputChanges, specInput } from "../test-input.ts";
import type { OciSeccomp } from "../types.ts";
import { defaultProfile } from "./default-profile.ts";

function seccompOf(changes: InputChanges): OciSeccomp | undefined {
  return buildOciSpec(specInput(changes)).linux.seccomp;
}

function allowedBy(profile: OciSeccomp): Set<string> {
  const plain = (profile.syscalls ?? []).filter(({ action, args }) => action === "SCMP_ACT_ALLOW" && args === undefined);
  return new Set(plain.flatMap(({ names }) => names));
}

describe("which filter applies", () => {
  it("none, when there is no profile, when unconfined, and when privileged", () => {
    assert.equal(seccompOf({}), undefined);
    assert.equal(seccompOf({ security: { seccomp: { type: "unconfined" } } }), undefined);
    assert.equal(seccompOf({ security: { seccomp: { type: "runtime-default" }, privileged: true } }), undefined);
  });

  it("is refused on a kernel without seccomp", () => {
    assert.throws(() => seccompOf({ host: { seccomp: false }, security: { seccomp: { type: "runtime-default" } } }), /Unconfined/);
  });

  it("the file's, without what OCI does not know", () => {
    const rule = { names: ["chmod"], action: "SCMP_ACT_ERRNO", args: null, comment: "moby writes these" };
    const seccompProfile = JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [rule], archMap: [] });
    const seccomp = seccompOf({ security: { seccomp: { type: "localhost", reference: "/p.json" } }, input: { seccompProfile } });
    assert.equal(
      JSON.stringify(seccomp),
      JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["chmod"], action: "SCMP_ACT_ERRNO" }] }),
    );
  });

  for (const seccompProfile of [
    "",
    "{",
    "[]",
    "{}",
    '{"defaultAction":"ALLOW"}',
    '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":"x"}]}',
  ]) {
    it(`refuses the file ${seccompProfile}`, () => {
      const security = { seccomp: { type: "localhost", reference: "/p.json" } } as const;
      assert.throws(() => seccompOf({ security, input: { seccompProfile } }), /localhost_ref: \/p\.json/);
    });
  }
});

describe("the default profile", () => {
  const bare = allowedBy(defaultProfile("x64", new Set()));

  it("allows what programs need and refuses what reaches past a container", () => {
    for (const name of ["execve", "openat2", "futex_waitv", "epoll_pwait2", "statx", "ptrace", "rseq", "landlock_create_ruleset"])
      assert.ok(bare.has(name), name);
    const refusedNames = [
      "mount",
      "bpf",
      "keyctl",
      "add_key",
      "kexec_load",
      "io_uring_setup",
      "userfaultfd",
      "init_module",
      "setns",
      "unshare",
      "open_by_handle_at",
    ];
    for (const name of [...refusedNames, "clone", "clone3", "socket", "personality", "reboot", "clock_settime"])
      assert.ok(!bare.has(name), name);
  });

  const widened: [capability: string, name: string][] = [
    ["CAP_SYS_ADMIN", "mount"],
    ["CAP_SYS_ADMIN", "clone3"],
    ["CAP_SYS_ADMIN", "sethostname"],
    ["CAP_BPF", "bpf"],
    ["CAP_PERFMON", "perf_event_open"],
    ["CAP_SYS_TIME", "clock_settime"],
    ["CAP_SYS_CHROOT", "chroot"],
    ["CAP_DAC_READ_SEARCH", "open_by_handle_at"],
    ["CAP_SYS_NICE", "mbind"],
  ];
  for (const [capability, name] of widened) {
    it(`lets ${capability} use ${name}`, () => {
      assert.ok(!bare.has(name));
      assert.ok(allowedBy(defaultProfile("x64", new Set([capability]))).has(name));
    });
  }

  it("lets clone make processes but no namespaces, and sends clone3 to clone", () => {
    const rules = defaultProfile("x64", new Set()).syscalls ?? [];
    const clone = rules.find(({ names }) => names.includes("clone"));
    const mask = clone?.args?.[0]?.value ?? 0;
    for (const flag of [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000])
      assert.ok((mask & flag) !== 0);
    const threadFlags = 0x0001_0000 | 0x0000_0100 | 0x0008_0000 | 0x0100_0000;
    assert.equal(mask & threadFlags, 0);
    assert.deepEqual(rules.at(-1), { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38 });
  });

  it("names no call twice, in a stable order, for each processor", () => {
    for (const arch of ["x64", "arm64", "riscv64"]) {
      const profile = defaultProfile(arch, new Set(["CAP_SYS_ADMIN", "CAP_BPF"]));
      const names = profile.syscalls?.[0]?.names ?? [];
      assert.deepEqual(names, [...new Set(names)].sort());
      assert.equal(profile.architectures?.length, arch === "x64" ? 3 : arch === "arm64" ? 2 : undefined);
    }
  });
});
