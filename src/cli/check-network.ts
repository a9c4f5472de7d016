import { messageOf } from "../lib/coded-error.ts";
import { loadNetworkConfig } from "../netns/cni-config.ts";
import { findPlugin } from "../netns/cni-plugin.ts";
import type { CheckOptions, CheckResult } from "./check.ts";

/** A network as small as they come, for a node that stands alone. */
const EXAMPLE = JSON.stringify({
  cniVersion: "1.0.0",
  name: "pods",
  plugins: [
    {
      type: "bridge",
      bridge: "cni0",
      isGateway: true,
      ipMasq: true,
      ipam: { type: "host-local", ranges: [[{ subnet: "10.88.0.0/16" }]], routes: [{ dst: "0.0.0.0/0" }] },
    },
    { type: "portmap", capabilities: { portMappings: true } },
  ],
});

export async function checkCniConfig({ confDir }: CheckOptions["cni"]): Promise<CheckResult> {
  try {
    const { name, file } = await loadNetworkConfig(confDir);
    return { status: "ok", found: `network ${name} from ${file}` };
  } catch (error) {
    const write = `mkdir -p ${confDir} && echo '${EXAMPLE}' > ${confDir}/10-pods.conflist`;
    return {
      status: "failed",
      found: messageOf(error),
      fix: `install the cluster's network add-on; on a node that stands alone: ${write}`,
    };
  }
}

export async function checkCniPlugins({ confDir, binDirs }: CheckOptions["cni"]): Promise<CheckResult> {
  const types = await pluginTypes(confDir);
  if (types === undefined) return { status: "warn", found: "not known which are needed: there is no CNI configuration" };
  const found: string[] = [];
  const missing: string[] = [];
  for (const type of new Set(types)) {
    const file = await findPlugin(type, binDirs).catch(() => undefined);
    if (file === undefined) missing.push(type);
    else found.push(file);
  }
  if (missing.length === 0) return { status: "ok", found: found.join(" ") };
  return {
    status: "failed",
    found: `${missing.join(", ")} not found in ${binDirs.join(", ")}`,
    fix: "apt-get install -y containernetworking-plugins, or what the cluster's network add-on brings",
  };
}

/** Of the chain and of its address management. */
async function pluginTypes(confDir: string): Promise<readonly string[] | undefined> {
  try {
    const { plugins } = await loadNetworkConfig(confDir);
    return plugins.flatMap(({ type, ipam }) => [type, ...ipamType(ipam)]);
  } catch {
    return undefined;
  }
}

function ipamType(ipam: unknown): readonly string[] {
  if (typeof ipam !== "object" || ipam === null || !("type" in ipam)) return [];
  return typeof ipam.type === "string" && ipam.type !== "" ? [ipam.type] : [];
}
