import type { CgroupDriver } from "./cgroups.ts";
import { HostError } from "./errors.ts";

/** A pod's cgroup, as the supervisor contract and the accounting need it. */
export interface PodCgroup {
  readonly driver: CgroupDriver;
  /** cgroupfs: an absolute path below the hierarchy's root. systemd: the name of a slice. */
  readonly parent: string;
  /** Path below the hierarchy's root, with either driver. */
  readonly path: string;
  /** True when it is ours to make and to remove; false when the kubelet made it. */
  readonly owned: boolean;
}

/** A container's cgroup. */
export interface ContainerCgroup {
  /** `linux.cgroupsPath` of the OCI runtime spec: `/parent/ID`, or `slice:aurae:ID`. */
  readonly cgroupsPath: string;
  /** Path below the hierarchy's root. */
  readonly path: string;
}

export interface PodCgroupRequest {
  readonly driver: CgroupDriver;
  /** CRI's `linux.cgroup_parent`; empty when the client gave none. */
  readonly cgroupParent: string;
  readonly podId: string;
  readonly instanceId: string;
}

const SCOPE_PREFIX = "aurae";

/** The cgroup CRI asked for or, without one, a cgroup of our own whose name carries the instance id. */
export function podCgroup(request: PodCgroupRequest): PodCgroup {
  const { driver, cgroupParent, podId, instanceId } = request;
  const owned = cgroupParent === "";
  if (driver === "cgroupfs") {
    const parent = owned ? `/${SCOPE_PREFIX}-${instanceId}/pod${podId}` : cgroupfsPath(cgroupParent);
    return { driver, parent, path: parent, owned };
  }
  const parent = owned ? `${ownSlice(instanceId)}-pod${podId}.slice` : sliceName(cgroupParent);
  return { driver, parent, path: `/${expandSlice(parent)}`, owned };
}

/** The slices around pods of our own, the inner one first; others of this node share the outer one. */
export function ownSlices(instanceId: string): readonly { readonly slice: string; readonly path: string }[] {
  const slices = [`${ownSlice(instanceId)}.slice`, `${SCOPE_PREFIX}.slice`];
  return slices.map((slice) => ({ slice, path: `/${expandSlice(slice)}` }));
}

/** A dash nests slices, so none may come from an id. */
function ownSlice(instanceId: string): string {
  return `${SCOPE_PREFIX}-${instanceId.replaceAll("-", "_")}`;
}

export function containerCgroup(pod: PodCgroup, containerId: string): ContainerCgroup {
  if (pod.driver === "cgroupfs") {
    const path = pod.path === "/" ? `/${containerId}` : `${pod.path}/${containerId}`;
    return { cgroupsPath: path, path };
  }
  const path = `${pod.path === "/" ? "" : pod.path}/${SCOPE_PREFIX}-${containerId}.scope`;
  return { cgroupsPath: `${pod.parent}:${SCOPE_PREFIX}:${containerId}`, path };
}

/**
 * The nested path of a slice, relative: `a-b.slice` lies in `a.slice`. The root slice `-.slice` is the empty path.
 * Source: systemd.slice(5).
 */
export function expandSlice(name: string): string {
  if (name === "-.slice") return "";
  const stem = name.endsWith(".slice") ? name.slice(0, -".slice".length) : "";
  const parts = stem.split("-");
  if (name.includes("/") || hasControl(name) || parts.some((part) => part === "")) {
    throw parentError(name, "is not a slice: want dash-separated parts that end in .slice, such as kubepods-burstable.slice");
  }
  return parts.map((_part, index) => `${parts.slice(0, index + 1).join("-")}.slice`).join("/");
}

/** The kubelet gives the slice's whole nested path, other clients the bare name; both name the same slice by the last part. */
function sliceName(cgroupParent: string): string {
  const name =
    cgroupParent
      .split("/")
      .filter((part) => part !== "")
      .at(-1) ?? "";
  if (!name.endsWith(".slice")) {
    throw parentError(
      cgroupParent,
      "must end in a *.slice with the systemd cgroup driver: set the kubelet's cgroupDriver to systemd as well",
    );
  }
  const expanded = expandSlice(name);
  if (cgroupParent.includes("/") && trimSlashes(cgroupParent) !== expanded && trimSlashes(cgroupParent) !== name) {
    throw parentError(cgroupParent, `is not where systemd puts ${name}: want /${expanded}`);
  }
  return name;
}

function cgroupfsPath(cgroupParent: string): string {
  const parts = cgroupParent.split("/").filter((part) => part !== "");
  if (parts.some((part) => part === "." || part === "..") || hasControl(cgroupParent)) {
    throw parentError(cgroupParent, "must be a path without '.', '..' or control characters");
  }
  return `/${parts.join("/")}`;
}

function trimSlashes(path: string): string {
  return path
    .split("/")
    .filter((part) => part !== "")
    .join("/");
}

function hasControl(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

function parentError(parent: string, problem: string): HostError {
  return new HostError({ code: "ERR_CGROUP_PARENT", parent }, `linux.cgroup_parent ${JSON.stringify(parent)} ${problem}`);
}
