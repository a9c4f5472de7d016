import type { Prefix } from "../harness/prefix.ts";
import type { KubeletPlaces } from "./configuration.ts";

/** What the kubelet sets for the whole kernel as it starts. */
const tunables = [
  "vm/overcommit_memory",
  "vm/panic_on_oom",
  "kernel/panic",
  "kernel/panic_on_oops",
  "kernel/keys/root_maxkeys",
  "kernel/keys/root_maxbytes",
];

/** Where it writes whatever its configuration says: `device-plugins` and links to logs. */
const fixedDirs = ["/var/lib", "/var/log"];

/**
 * Before the kubelet: a mount namespace in which these places are its own, so that the host keeps what it has. The kubelet's root directory stays
 * shared with the host, because the runtime must see the volumes that are mounted there. It dies with this process.
 */
const script = `set -eu
scratch=$1
shift
for mount in / /proc ${fixedDirs.join(" ")}; do mountpoint -q $mount && mount --make-private $mount || :; done
for name in ${tunables.join(" ")}; do
  copy=$scratch/$(echo $name | tr / .)
  cat /proc/sys/$name >$copy
  mount --bind $copy /proc/sys/$name
done
for dir in ${fixedDirs.join(" ")}; do mount -t tmpfs kubelet $dir; done
exec setpriv --pdeathsig KILL "$@"`;

/** Arguments of `unshare` that run the kubelet `program`. `scratchDir` is for files of the launcher. */
export function launcherArguments(program: string, prefix: Prefix, places: KubeletPlaces, scratchDir: string): readonly string[] {
  return [
    ...["--mount", "--propagation", "unchanged", "sh", "-c", script, "kubelet-launcher", scratchDir],
    program,
    `--config=${places.configPath}`,
    `--root-dir=${places.rootDir}`,
    `--cert-dir=${places.certDir}`,
    // The name is part of every pod's.
    `--hostname-override=${nodeNameOf(prefix)}`,
  ];
}

export function nodeNameOf(prefix: Prefix): string {
  return prefix.network.bridge;
}
