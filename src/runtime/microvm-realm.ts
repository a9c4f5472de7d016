import { mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { GuestServiceService } from "../../api/gen/aurae/guest/v0/guest.ts";
import { VmServiceService, type Volume } from "../../api/gen/aurae/supervisor/v0/vm.ts";
import type { DeviceNode, DeviceRequest } from "../host/devices.ts";
import { failpoint } from "../lib/failpoint.ts";
import { GUEST_DEVICES, type Guest, guestDevice, guestPaths } from "./guest.ts";
import { hostMountSources, withMountsBelow } from "./mount-sources.ts";
import { withCdi } from "./oci/cdi-edits.ts";
import type { HostFacts, MountSource } from "./oci/input.ts";
import type { OciSpec } from "./oci/types.ts";
import type { NamespacePaths } from "./pod.ts";
import type { PodFilePaths } from "./pod-directory.ts";
import type { Image, ImageLayer } from "./ports.ts";
import type { Realm, Wait } from "./realm.ts";
import { bundleDir, type Container, type Pod, podStateDir, type Runtime } from "./runtime.ts";

/** The guest's kernel. What it needs of the host is plugged or shared for each container. */
export class MicrovmRealm implements Realm {
  readonly facts: HostFacts;
  readonly namespaces: NamespacePaths;
  readonly files: PodFilePaths = guestPaths.files;
  readonly #runtime: Runtime;
  readonly #pod: Pod;

  constructor(runtime: Runtime, pod: Pod, guest: Guest) {
    this.#runtime = runtime;
    this.#pod = pod;
    this.facts = guest.facts;
    this.namespaces = guest.namespaces;
  }

  rootfsPath({ id }: Container): string {
    return guestPaths.rootfs(id);
  }

  scratchPath({ id }: Container): string {
    return guestPaths.scratch(id);
  }

  cgroupsPath({ id }: Container): string {
    return guestPaths.cgroup(id);
  }

  async device({ hostPath, containerPath, permissions }: DeviceRequest): Promise<readonly DeviceNode[]> {
    const node = guestDevice(hostPath);
    if (node === undefined) throw new Error(`${hostPath} is not a device of the guest`);
    return [{ ...node, containerPath, permissions }];
  }

  async devices(): Promise<readonly DeviceNode[]> {
    return GUEST_DEVICES;
  }

  async mountLayers(owner: string, image: Image, wait: Wait): Promise<readonly string[]> {
    const { agent } = this.#pod;
    const layers = this.#runtime.images.claimLayers(image.id, owner);
    for (const { diffId, blobPath } of layers) {
      await agent.call(VmServiceService.exposeLayer, { hostPath: blobPath, name: layerName(diffId) }, wait);
    }
    const pciPaths = await this.#plug(layers, wait);
    failpoint("runtime.vm.plugged.after");
    const request = { layers: layers.map(({ diffId }, index) => ({ name: layerName(diffId), pciPath: pciPaths[index] ?? "" })) };
    return (await agent.call(GuestServiceService.mountLayers, request, wait)).paths;
  }

  imageVolumePath({ id }: Container, index: number): string {
    return guestPaths.imageVolume(id, index);
  }

  async mountSources(container: Container, wait: Wait): Promise<readonly MountSource[]> {
    const config = withCdi(container.record.config, container.record.cdi);
    const sources = await hostMountSources(config);
    const holders = await withMountsBelow(sources.filter((path) => path !== undefined));
    const volumes: Volume[] = [];
    const answers = config.mounts.map(({ readonly, uidMappings }, index) => {
      const hostPath = sources[index];
      if (hostPath === undefined) return { path: this.imageVolumePath(container, index), mapped: true, guarded: false };
      const name = volumeName(container, index);
      // The guest sees one file system, so only the host can tell the volume's own mount from those below it.
      const guarded = readonly === "yes" && holders.has(hostPath);
      volumes.push({ name, hostPath, readOnly: readonly !== "no", writableBelow: guarded, mapped: uidMappings.length === 1 });
      return { path: guestPaths.volume(name), mapped: true, guarded };
    });
    if (volumes.length > 0) await this.#pod.agent.call(VmServiceService.shareVolumes, { volumes }, wait);
    return answers;
  }

  /** The bundle is the guest's; its specification is kept at the same path here, for verbose status and for whoever looks. */
  async beforeCreate({ id, record }: Container, spec: OciSpec, wait: Wait): Promise<void> {
    const bundle = bundleDir(this.#runtime.options, id);
    await mkdir(bundle, { recursive: true, mode: 0o700 });
    await writeFile(join(bundle, "config.json"), JSON.stringify(spec), { mode: 0o600 });
    if (record.logPath === "") return;
    await this.#pod.agent.call(VmServiceService.openLog, { containerId: id, path: record.logPath }, wait);
  }

  async takeBack(container: Container, wait: Wait): Promise<void> {
    const { config, cdi, logPath } = container.record;
    const names = withCdi(config, cdi).mounts.map((_mount, index) => volumeName(container, index));
    if (names.length > 0) await this.#pod.agent.call(VmServiceService.unshareVolumes, { names }, wait);
    if (logPath !== "") await this.#pod.agent.call(VmServiceService.closeLog, { containerId: container.id }, wait);
  }

  /** One after another: each takes the next free port. */
  async #plug(layers: readonly ImageLayer[], { signal }: Wait): Promise<readonly string[]> {
    await using machine = await this.#runtime.vmm.connect(podStateDir(this.#runtime.options.stateDir, this.#pod.id), { signal });
    const pciPaths: string[] = [];
    for (const { diffId, blobPath } of layers) {
      const { size: sizeBytes } = await stat(blobPath);
      pciPaths.push(await machine.plugLayer({ name: layerName(diffId), sizeBytes }, { signal }));
    }
    return pciPaths;
  }
}

/** A layer's name in QEMU and in the guest: its digest without the algorithm. */
function layerName(diffId: string): string {
  return diffId.slice(diffId.indexOf(":") + 1);
}

function volumeName({ id }: Container, index: number): string {
  return `${id.slice(0, 16)}-${index}`;
}
