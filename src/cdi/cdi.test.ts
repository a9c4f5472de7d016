import assert from "node:assert/strict";
import { mkdir, mkdtempDisposable, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";

import { silentLog } from "../lib/log.ts";
import { CdiDevices } from "./cdi.ts";
import { CdiError, type CdiFact } from "./errors.ts";

const NULL_DEVICE = { type: "c", major: 1, minor: 3 } as const;

/** Two directories of specifications, the second above the first. */
async function scene() {
  const dir = await mkdtempDisposable(join(tmpdir(), "cdi-"));
  const dirs = [join(dir.path, "low"), join(dir.path, "high")];
  for (const path of dirs) await mkdir(path);
  const cdi = new CdiDevices({ specDirs: dirs }, { log: silentLog });
  const write = (name: string, content: string | object) =>
    writeFile(join(dir.path, name), typeof content === "string" ? content : JSON.stringify(content));
  return { cdi, write, path: dir.path, [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose]() };
}

function specification(devices: Readonly<Record<string, object>>, changes: object = {}): object {
  return {
    cdiVersion: "0.8.0",
    kind: "vendor.example/gpu",
    devices: Object.entries(devices).map(([name, containerEdits]) => ({ name, containerEdits })),
    ...changes,
  };
}

async function refused(call: Promise<unknown>, code: CdiFact["code"], message: RegExp): Promise<void> {
  await assert.rejects(call, (error: unknown) => {
    assert.ok(error instanceof CdiError, String(error));
    assert.equal(error.fact.code, code);
    assert.match(error.message, message);
    return true;
  });
}

suite("CDI devices", () => {
  test("the edits of a device, with what the host knows of its nodes", async () => {
    await using at = await scene();
    const file = specification({
      "0": {
        env: ["GPU=0"],
        deviceNodes: [
          { path: "/dev/gpu0", hostPath: "/dev/null", permissions: "rw", uid: 7 },
          { path: "/dev/null", fileMode: 0o640 },
        ],
        mounts: [
          { hostPath: at.path, containerPath: "/opt/gpu", options: ["ro", "nosuid", "rbind"] },
          { hostPath: "tmpfs", containerPath: "/scratch", type: "tmpfs", options: ["size=1m"] },
        ],
        hooks: [{ hookName: "createContainer", path: "/bin/true", args: ["true", "x"], timeout: 5 }],
        additionalGids: [44],
        intelRdt: { closID: "gpu" },
      },
    });
    await at.write("low/gpu.json", file);
    assert.deepEqual(await at.cdi.resolve(["vendor.example/gpu=0"]), {
      env: ["GPU=0"],
      deviceNodes: [
        { ...NULL_DEVICE, containerPath: "/dev/gpu0", hostPath: "/dev/null", fileMode: 0o666, permissions: "rw", uid: 7 },
        { ...NULL_DEVICE, containerPath: "/dev/null", hostPath: "/dev/null", fileMode: 0o640, permissions: "rwm" },
      ],
      mounts: [
        { hostPath: at.path, containerPath: "/opt/gpu", type: "bind", options: ["ro", "nosuid", "rbind"] },
        { hostPath: "tmpfs", containerPath: "/scratch", type: "tmpfs", options: ["size=1m"] },
      ],
      hooks: [{ name: "createContainer", path: "/bin/true", args: ["true", "x"], env: [], timeoutSec: 5 }],
      additionalGids: [44],
      intelRdt: { closID: "gpu" },
    });
    assert.equal(await at.cdi.resolve([]), undefined);
  });

  test("YAML too, with modes as its writers mean them; what is for all devices of a file comes once, first", async () => {
    await using at = await scene();
    await at.write(
      "low/net.yaml",
      `cdiVersion: 0.6.0
kind: vendor.example/net
containerEdits:
  env: [ALL=1]
devices:
  - name: a
    containerEdits:
      deviceNodes:
        - {path: /dev/a, type: u, major: 1, minor: 3, fileMode: 0660}
  - name: b
    containerEdits: {env: [B=1]}
`,
    );
    const edits = await at.cdi.resolve(["vendor.example/net=b", "vendor.example/net=a"]);
    assert.deepEqual(edits?.env, ["ALL=1", "B=1"]);
    assert.deepEqual(edits?.deviceNodes, [
      { ...NULL_DEVICE, containerPath: "/dev/a", hostPath: "/dev/a", fileMode: 0o660, permissions: "rwm" },
    ]);
  });

  test("a later directory overrides an earlier one; two files of one directory are a conflict", async () => {
    await using at = await scene();
    await at.write("low/a.json", specification({ x: { env: ["FROM=low"] }, y: { env: ["Y=1"] } }));
    await at.write("high/b.json", specification({ x: { env: ["FROM=high"] } }));
    assert.deepEqual((await at.cdi.resolve(["vendor.example/gpu=x"]))?.env, ["FROM=high"]);
    await at.write("high/c.yml", JSON.stringify(specification({ x: { env: ["FROM=other"] } })));
    await refused(
      at.cdi.resolve(["vendor.example/gpu=x"]),
      "ERR_CDI_CONFLICT",
      /gpu=x' is described by .*high\/b\.json and by .*high\/c\.yml: remove/,
    );
    assert.deepEqual((await at.cdi.resolve(["vendor.example/gpu=y"]))?.env, ["Y=1"], "the others are as they were");
    await rm(join(at.path, "high/c.yml"));
    assert.deepEqual((await at.cdi.resolve(["vendor.example/gpu=x"]))?.env, ["FROM=high"], "a change counts at once");
  });

  test("a device that nobody describes is told with its name, and with the files that could not be read", async () => {
    await using at = await scene();
    await at.write("low/good.json", specification({ x: { env: ["X=1"] } }));
    await at.write("low/bad.json", "{");
    await at.write("low/ignored.txt", "{");
    await refused(
      at.cdi.resolve(["vendor.example/gpu=z"]),
      "ERR_CDI_UNKNOWN_DEVICE",
      /'vendor\.example\/gpu=z' is not on this node: .*low\/bad\.json cannot be read/,
    );
    assert.deepEqual((await at.cdi.resolve(["vendor.example/gpu=x"]))?.env, ["X=1"], "a bad file harms no other");
    const none = new CdiDevices({ specDirs: [] }, { log: silentLog });
    await refused(none.resolve(["v/c=d"]), "ERR_CDI_UNKNOWN_DEVICE", /no directory of CDI specifications is configured/);
    const missing = new CdiDevices({ specDirs: [join(at.path, "nowhere")] }, { log: silentLog });
    await refused(missing.resolve(["v/c=d"]), "ERR_CDI_UNKNOWN_DEVICE", /nowhere has it/);
  });

  const bad: readonly (readonly [what: string, file: object, problem: RegExp])[] = [
    ["an unknown key", specification({ x: { netDevices: [] } }), /devices\.0\.containerEdits: .*netDevices/],
    ["a device without edits", specification({ x: {} }), /devices\.0\.containerEdits: must not be empty/],
    ["a version that is to come", specification({ x: { env: ["A=1"] } }, { cdiVersion: "2.0.0" }), /cdiVersion: must be a version/],
    ["a kind without a class", specification({ x: { env: ["A=1"] } }, { kind: "vendor" }), /kind: must be VENDOR\/CLASS/],
    ["no device", specification({}), /devices: /],
    ["a name of other characters", specification({ "a/b": { env: ["A=1"] } }), /devices\.0\.name/],
    ["a variable without a value", specification({ x: { env: ["A"] } }), /devices\.0\.containerEdits\.env\.0: must be NAME=value/],
    ["a relative path", specification({ x: { deviceNodes: [{ path: "dev/x" }] } }), /deviceNodes\.0\.path: must be an absolute path/],
    ["an unknown hook", specification({ x: { hooks: [{ hookName: "later", path: "/bin/true" }] } }), /hooks\.0\.hookName/],
    [
      "a device twice",
      { ...specification({}), devices: [1, 2].map(() => ({ name: "x", containerEdits: { env: ["A=1"] } })) },
      /devices: 'x' is there twice/,
    ],
  ];
  for (const [what, file, problem] of bad) {
    test(`a specification with ${what} is refused with its place`, async () => {
      await using at = await scene();
      await at.write("low/bad.json", file);
      await refused(at.cdi.resolve(["vendor.example/gpu=x"]), "ERR_CDI_UNKNOWN_DEVICE", problem);
    });
  }

  const impossible: readonly (readonly [what: string, edits: object, problem: RegExp])[] = [
    [
      "a node that is not there",
      { deviceNodes: [{ path: "/dev/no-such-device" }] },
      /device node \/dev\/no-such-device cannot be made: ENOENT/,
    ],
    ["a node that is no device", { deviceNodes: [{ path: "/dev/x", hostPath: "/etc/hosts" }] }, /\/etc\/hosts is not a device node/],
    ["a directory of nodes", { deviceNodes: [{ path: "/dev/x", hostPath: "/dev" }] }, /is a directory/],
    ["another type than the host's", { deviceNodes: [{ path: "/dev/null", type: "b" }] }, /is of type c, not b/],
    ["a pipe", { deviceNodes: [{ path: "/dev/x", type: "p" }] }, /named pipe/],
    ["a mount of nothing", { mounts: [{ hostPath: "/no/such", containerPath: "/x" }] }, /its mount cannot be made: ENOENT/],
    ["a hook that is not there", { hooks: [{ hookName: "prestart", path: "/no/such" }] }, /its hook cannot be run: ENOENT/],
  ];
  for (const [what, edits, problem] of impossible) {
    test(`${what} is told with the device and the file`, async () => {
      await using at = await scene();
      await at.write("low/x.json", specification({ x: edits }));
      await refused(
        at.cdi.resolve(["vendor.example/gpu=x"]),
        "ERR_CDI_EDIT",
        new RegExp(`^CDI device 'vendor\\.example/gpu=x': .*${problem.source}.*low/x\\.json`),
      );
    });
  }
});
