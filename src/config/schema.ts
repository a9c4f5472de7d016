import type { Config } from "./config.ts";
import {
  addressKind,
  choiceKind,
  durationKind,
  integerKind,
  type Kind,
  listKind,
  loopbackKind,
  pathKind,
  pathOrNoneKind,
  sizeKind,
  textOrNoneKind,
  unixUrlKind,
} from "./kinds.ts";

/** One key: how it is called in TOML, read, defaulted and explained. */
export interface Key<T> {
  readonly type: "key";
  readonly toml: string;
  readonly kind: Kind<T>;
  readonly fallback: T;
  /** Whole sentences, for an operator. */
  readonly meaning: string;
}

export interface Table<T> {
  readonly type: "table";
  readonly toml: string;
  readonly meaning: string;
  readonly keys: SchemaOf<T>;
}

/** A key for each value and a table for each nested interface, so that the schema and `Config` cannot drift apart. */
export type SchemaOf<T> = {
  readonly [Name in keyof T]-?: [T[Name]] extends [string | number | boolean | readonly string[]] ? Key<T[Name]> : Table<T[Name]>;
};

function key<T>(toml: string, kind: Kind<T>, fallback: NoInfer<T>, meaning: string): Key<T> {
  return { type: "key", toml, kind, fallback, meaning };
}

function table<T>(toml: string, meaning: string, keys: SchemaOf<T>): Table<T> {
  return { type: "table", toml, meaning, keys };
}

const positive = integerKind(1, Number.MAX_SAFE_INTEGER);

/** Every key there is. Validation, `config default`, `config show` and the reference in docs are made from it. */
export const schema: SchemaOf<Config> = {
  root: key(
    "root",
    pathKind,
    "/var/lib/aurae-cri",
    "Directory of what survives a reboot: database, images, a record per pod. Held by one daemon at a time.",
  ),
  state: key(
    "state",
    pathKind,
    "/run/aurae-cri",
    "Directory of what does not survive a reboot: sockets of the pods, pinned namespaces. Belongs on a tmpfs.",
  ),
  listen: key(
    "listen",
    unixUrlKind,
    "/run/aurae/aurae-cri.sock",
    "Socket that the kubelet and crictl connect to. Its directory is made; a stale socket is taken over.",
  ),

  log: table("log", "What the daemon writes to stderr.", {
    level: key(
      "level",
      choiceKind("error", "warn", "info", "debug"),
      "info",
      "Lines below this level are dropped. info is one line per CRI call and per change of a pod.",
    ),
    format: key(
      "format",
      choiceKind("json", "console"),
      "json",
      "json is one object per line, for a log collector; console is for reading.",
    ),
  }),

  cni: table("cni", "How a pod gets its network.", {
    confDir: key(
      "conf_dir",
      pathKind,
      "/etc/cni/net.d",
      "Directory of CNI configurations; the first by name is used, and changes are noticed. Without one the node reports NetworkReady=false.",
    ),
    binDirs: key("bin_dirs", listKind(pathKind, 1), ["/opt/cni/bin", "/usr/lib/cni"], "Directories of CNI plugins, searched in order."),
  }),

  registry: table("registry", "Where images come from.", {
    configPath: key(
      "config_path",
      pathOrNoneKind,
      "",
      'Directory with a HOST[:PORT]/hosts.toml per registry, as containerd reads it: mirrors, plain HTTP, CAs. "" asks every registry itself.',
    ),
  }),

  image: table("image", "Pulling and keeping images.", {
    maxConcurrentDownloads: key("max_concurrent_downloads", positive, 3, "Layers fetched at a time, over all pulls."),
    noProgressTimeoutMs: key(
      "no_progress_timeout",
      durationKind,
      300_000,
      'A pull that receives nothing for so long fails. "0s" waits forever.',
    ),
    pinned: key(
      "pinned",
      listKind(textOrNoneKind),
      [],
      'Images that the kubelet must not collect: globs over REPOSITORY:TAG, such as "registry.example/base/*".',
    ),
  }),

  vm: table("vm", "Pods that are microVMs.", {
    accelerator: key(
      "accelerator",
      choiceKind("auto", "kvm", "tcg", "off"),
      "auto",
      "auto uses KVM where a trial boot proves that it works, and never software emulation. tcg is software emulation, for tests. off makes no microVMs.",
    ),
    defaultMemoryBytes: key("default_memory", sizeKind, 512 * 2 ** 20, "Memory of a microVM whose pod sets no limits."),
    defaultVcpus: key(
      "default_vcpus",
      integerKind(1, 255),
      1,
      "Processors of a microVM whose pod sets no limits; never more than the node has.",
    ),
    template: key(
      "template",
      choiceKind("auto", "off"),
      "auto",
      "auto: under software emulation, where a boot is slow, a machine of each size that pods have is booted once and saved, and microVMs go on from it. off: every microVM boots.",
    ),
    qemuPath: key(
      "qemu_path",
      pathKind,
      "/usr/bin/qemu-system-x86_64",
      "QEMU, version 7.2 or newer. It and what it loads must be below /usr.",
    ),
    guestDir: key(
      "guest_dir",
      pathOrNoneKind,
      "",
      'Directory of what a microVM boots, and its manifest.json. "" is build/guest beside the program if there is one, else /usr/lib/aurae-cri/guest.',
    ),
  }),

  oci: table("oci", "How containers are run.", {
    runtime: key(
      "runtime",
      pathOrNoneKind,
      "",
      'Program with the OCI runtime command line, such as "/usr/sbin/runc". "" is youki, built into auraed.',
    ),
    bundleDir: key(
      "bundle_dir",
      pathKind,
      "/var/run/aurae/bundles",
      "Directory of the containers' OCI bundles; the same path inside a microVM.",
    ),
  }),

  placement: table("placement", "Which pods are microVMs.", {
    default: key(
      "default",
      choiceKind("prefer-vm", "require-vm", "flat"),
      "prefer-vm",
      "For pods without a runtime class. prefer-vm: a microVM unless the pod needs the host or the node cannot virtualize. require-vm: a microVM or an error. flat: on the host.",
    ),
  }),

  cgroup: table("cgroup", "How resources are accounted. Must agree with the kubelet, which asks for it at its start.", {
    driver: key("driver", choiceKind("auto", "cgroupfs", "systemd"), "auto", "auto is systemd where systemd is pid 1, else cgroupfs."),
  }),

  cdi: table("cdi", "Devices that containers ask for by name, as the Container Device Interface has it.", {
    specDirs: key(
      "spec_dirs",
      listKind(pathKind),
      ["/etc/cdi", "/var/run/cdi"],
      "Directories of CDI specifications (.json, .yaml), read whenever a container asks for a device; where two describe the same device, the later directory is right.",
    ),
  }),

  events: table("events", "What clients of GetContainerEvents are told.", {
    maxWaiting: key(
      "max_waiting",
      positive,
      1024,
      "Events that may wait for a client that reads too slowly. With one more its stream ends with their number, and the client has to list and call again.",
    ),
  }),

  auraed: table("auraed", "The program that supervises each pod.", {
    path: key(
      "path",
      pathOrNoneKind,
      "",
      'Its binary. "" is build/auraed beside the program if there is one, else /usr/lib/aurae-cri/auraed.',
    ),
  }),

  streaming: table("streaming", "The server behind kubectl exec, attach and port-forward, reached through the kubelet.", {
    address: key("address", loopbackKind, "127.0.0.1", "Address to listen on. Any other than a loopback address could be reached by pods."),
    port: key("port", integerKind(0, 65_535), 0, "Port to listen on; 0 takes any free one."),
    tlsCertFile: key(
      "tls_cert_file",
      pathOrNoneKind,
      "",
      'PEM file with the server\'s certificate and what it is signed by. It and its key are read anew when they change. "" for both serves plain HTTP.',
    ),
    tlsKeyFile: key("tls_key_file", pathOrNoneKind, "", "PEM file with the certificate's private key."),
    idleTimeoutMs: key(
      "idle_timeout",
      durationKind,
      4 * 3600 * 1000,
      'A session without a byte either way for so long ends. "0s" lets it wait forever.',
    ),
  }),

  metrics: table("metrics", "Metrics for Prometheus, at http://ADDRESS:PORT/metrics.", {
    address: key("address", addressKind, "127.0.0.1", "Address to listen on. Whoever reaches it may read; there is nothing to write."),
    port: key(
      "port",
      integerKind(0, 65_535),
      0,
      "Port to listen on. 0 serves and collects none: a port that nobody asked for is one more to guard, and the collector takes some 10 MB on every node.",
    ),
  }),
};

/** A key without its type, for code that walks the schema. */
export type AnyKey = Key<never>;

/** A row of the schema: `table` is undefined for the keys at the top. */
export interface SchemaRow {
  readonly table: Table<never> | undefined;
  /** Names of the properties in `Config`. */
  readonly property: readonly [string] | readonly [string, string];
  /** `cni.conf_dir`. */
  readonly path: string;
  readonly key: AnyKey;
}

/** All keys in order, those at the top first: TOML has no way back to the top once a table was opened. */
export function schemaRows(): readonly SchemaRow[] {
  const rows: SchemaRow[] = [];
  for (const [property, node] of Object.entries(schema) as [string, AnyKey | Table<never>][]) {
    if (node.type === "key") {
      rows.push({ table: undefined, property: [property], path: node.toml, key: node });
      continue;
    }
    for (const [inner, child] of Object.entries<AnyKey>(node.keys)) {
      rows.push({ table: node, property: [property, inner], path: `${node.toml}.${child.toml}`, key: child });
    }
  }
  return rows;
}
