import assert from "node:assert/strict";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { type DeepPartial, type Mount, NamespaceMode } from "../../api/gen/cri/v1/api.ts";
import { assertRefused } from "../harness/assertions.ts";
import type { Container } from "../harness/container.ts";
import { unary } from "../harness/cri-client.ts";
import { imageSpec } from "../harness/node.ts";
import { runtimeUnderTest } from "../harness/settings.ts";
import { useNode } from "../harness/use-node.ts";

const node = useNode({ pods: "both", images: ["busybox", "layers"] });
const handlers = runtimeUnderTest() === "containerd" ? [""] : ["aurae-flat", "aurae-vm"];

function volume(name: string, containerPath: string, changes: DeepPartial<Mount> = {}): DeepPartial<Mount> {
  return { containerPath, readonly: true, image: { image: node().registry.reference(name) }, ...changes };
}

function idOf(name: string): string {
  return node().registry.image(name).images.at(-1)?.config.digest ?? "";
}

async function refs(container: Container): Promise<Readonly<Record<string, string | undefined>>> {
  return Object.fromEntries((await container.status()).mounts.map(({ containerPath, image }) => [containerPath, image?.imageRef]));
}

async function imageBytes(): Promise<bigint> {
  const { image } = node().clients;
  return (await unary(image, image.imageFsInfo, {})).imageFilesystems[0]?.usedBytes?.value ?? 0n;
}

for (const runtimeHandler of handlers) {
  const where = runtimeHandler === "" ? "" : `, ${runtimeHandler}`;

  test(`an image as a volume: merged, read-only, its programs run, its digest in the status${where}`, async () => {
    await using pod = await node().runPod({ runtimeHandler });
    const container = await pod.start({
      mounts: [
        volume("layers", "/whole"),
        volume("layers", "/deep/er", { imageSubPath: "data" }),
        volume("busybox", "/tools"),
        volume("busybox", "/accounts", { imageSubPath: "etc/", recursiveReadOnly: node().kind !== "containerd" }),
      ],
    });
    assert.equal(
      await container.shell("cd /whole/data && find . | sort | tr '\\n' ' '; cat /whole/data/link"),
      ". ./dir ./dir/new ./hard ./kept ./link ./owned kept",
    );
    assert.equal(await container.shell("ls /deep/er; cat /deep/er/dir/new"), "dir\nhard\nkept\nlink\nowned\nnew");
    assert.equal(await container.shell("/tools/bin/busybox echo it runs; ls /accounts"), "it runs\ngroup\npasswd");
    for (const path of ["/whole/data/kept", "/deep/er/made", "/tools/made", "/accounts/passwd"])
      assert.match((await container.exec(["/bin/touch", path])).stderr, /Read-only file system/);
    if (node().kind === "containerd") return;
    const [layers, busybox] = [idOf("layers"), idOf("busybox")];
    assert.deepEqual(await refs(container), { "/whole": layers, "/deep/er": layers, "/tools": busybox, "/accounts": busybox });
  });

  test(`in a user namespace the image's files belong to the pod's ids${where}`, async () => {
    const ids = [{ containerId: 0, hostId: 300_000, length: 65_536 }];
    const usernsOptions = { mode: NamespaceMode.POD, uids: ids, gids: ids };
    const namespaceOptions = { pid: NamespaceMode.CONTAINER, usernsOptions };
    await using pod = await node().runPod({ runtimeHandler, linux: { securityContext: { namespaceOptions } } });
    // As the kubelet asks for every mount of such a pod.
    const mapped = { uidMappings: ids, gidMappings: ids };
    const container = await pod.start({
      linux: { securityContext: { namespaceOptions } },
      mounts: [volume("layers", "/whole", mapped), volume("busybox", "/tools", { ...mapped, imageSubPath: "bin" })],
    });
    assert.equal(await container.shell("stat -c %u:%g /whole/data /whole/data/kept /tools /tools/busybox | sort -u"), "0:0");
  });

  test(`what cannot be mounted is refused by its field, leaves nothing, and the same name works afterwards${where}`, async () => {
    await using pod = await node().runPod({ runtimeHandler });
    const { kind, registry } = node();
    const create = (mount: DeepPartial<Mount>) => pod.create({ metadata: { name: "again" }, mounts: [volume("busybox", "/first"), mount] });
    const failed = (field: string, what: RegExp) => ({
      code: status.UNKNOWN,
      message: new RegExp(`^ImageVolumeMountFailed: config\\.mounts\\[1\\]\\.${field}: .*${what.source}`),
    });
    await assertRefused(
      kind,
      create({ ...volume("busybox", "/x"), image: { image: `${registry.host}/never-pulled:1` } }),
      failed("image", /never-pulled:1' is not on this node/),
    );
    for (const [imageSubPath, problem] of [
      ["no/such", /No such file/],
      ["etc/passwd", /Not a directory/],
      ["data/link", /Not a directory/],
    ] as const)
      await assertRefused(kind, create(volume("layers", "/x", { imageSubPath })), failed("image_sub_path", problem));
    const invalid = (field: string) => ({ code: status.INVALID_ARGUMENT, message: new RegExp(`^config\\.mounts\\[1\\]\\.${field}: `) });
    await assertRefused(kind, create(volume("layers", "/x", { imageSubPath: "../etc" })), invalid("image_sub_path"));
    await assertRefused(kind, create(volume("layers", "/x", { readonly: false })), invalid("readonly"));
    if (kind === "containerd") return;
    await assertRefused(kind, create(volume("layers", "/x", { propagation: 2 })), invalid("propagation"));
    await assertRefused(kind, create(volume("layers", "/x", { hostPath: "/tmp" })), invalid("host_path"));
    await using container = await create(volume("layers", "/x", { imageSubPath: "data" }));
    await container.start();
    assert.equal(await container.shell("cat /x/kept"), "kept");
  });

  test(`an image that is mounted counts as used, also by a daemon that was killed${where}`, async () => {
    const id = await node().pull("multi");
    await using pod = await node().runPod({ runtimeHandler });
    const container = await pod.start({ mounts: [{ ...volume("multi", "/volume"), image: { image: id } }] });
    const { image } = node().clients;
    await unary(image, image.removeImage, { image: imageSpec(id) });
    const listed = async () => (await unary(image, image.listImages, { filter: undefined })).images.map((one) => one.id);
    assert.ok(!(await listed()).includes(id));
    assert.equal(await container.shell("cat /volume/native"), "native");
    if (node().kind === "containerd") return;
    await node().kill9();
    await node().startDaemon();
    assert.equal(await container.shell("cat /volume/native"), "native");
    const held = await imageBytes();
    await container.remove();
    assert.ok((await imageBytes()) < held, "the last container gone, its content is too");
    await assertRefused(node().kind, pod.create({ mounts: [{ ...volume("multi", "/volume"), image: { image: id } }] }), {
      code: status.UNKNOWN,
      message: /is not on this node/,
    });
  });
}
