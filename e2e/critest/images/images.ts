import type { PublishedImage } from "../../harness/images.ts";
import { defaultPath } from "../../harness/images.ts";
import type { ImageSettings, LayerRecipe } from "../../harness/oci-image.ts";
import { buildImage } from "../../harness/oci-image.ts";
import type { TarEntry } from "../../harness/tar.ts";
import type { Parts } from "./parts.ts";

/** The registries whose names are compiled into critest; all of them are served by the one on the loopback. */
export const upstreamHosts = ["registry.k8s.io", "k8s.gcr.io", "gcr.io"] as const;

/** Its digest cannot be the one that the suite knows. */
export const digestImageName = "k8s-staging-cri-tools/test-image-digest";

/**
 * Every image that critest 1.36 names, made of parts of this machine. Each has a file with its name, so that none shares its id with another: the
 * suite compares ids and the exact tags of one. An image that is named under several tags or hosts is one manifest.
 */
export function critestImages(parts: Parts): readonly PublishedImage[] {
  const base: LayerRecipe = { entries: [...skeleton, ...parts.busybox], compression: "gzip" };
  const make = (name: string, tags: readonly string[], variant: Variant = {}): PublishedImage[] => {
    const image = buildImage({
      layers: [base, { entries: [file("image-name", `${name}:${tags[0]}\n`), ...(variant.entries ?? [])], compression: "gzip" }],
      settings: { Env: [defaultPath], Cmd: ["sh"], ...variant.settings },
    });
    return tags.map((tag) => ({ name, tag, mediaType: image.mediaType, manifest: image.manifest, images: [image] }));
  };
  const test = (name: string, tags: readonly string[], variant?: Variant) =>
    make(`k8s-staging-cri-tools/test-image-${name}`, tags, variant);
  const nginx = (port: number): Variant => ({
    entries: [...parts.nginx, ...nginxFiles(port)],
    settings: { Cmd: ["nginx", "-g", "daemon off;"] },
  });
  return [
    ...make("e2e-test-images/busybox", ["1.29-2"]),
    ...make("e2e-test-images/nginx", ["1.14-2"], nginx(80)),
    ...make("e2e-test-images/httpd", ["2.4.39-4"], httpd),
    ...make("e2e-test-images/nonewprivs", ["1.3"], { entries: parts.nonewprivs, settings: { Entrypoint: ["/nnp"], Cmd: [] } }),
    ...make("pause", ["3.9"], { settings: { Entrypoint: ["/bin/sleep", "infinity"], Cmd: [] } }),
    // A server in the host's network must not take port 80.
    ...make(`k8s-staging-cri-tools/hostnet-nginx-${goArchitecture()}`, ["latest"], nginx(12003)),
    ...["1", "2", "3", "latest"].flatMap((name) => test(name, ["latest"])),
    ...make(digestImageName, ["latest"]),
    ...test("tag", ["test"]),
    ...test("tag", ["all"]),
    ...test("tags", ["1", "2", "3"]),
    ...test("user-uid", ["latest"], user("1002")),
    ...test("user-username", ["latest"], user("www-data")),
    ...test("user-uid-group", ["latest"], user("1003:1004")),
    ...test("user-username-group", ["latest"], user("www-data:1004")),
    ...test("predefined-group", ["latest"], predefinedGroup),
  ];
}

interface Variant {
  readonly entries?: readonly TarEntry[];
  readonly settings?: ImageSettings;
}

const passwd = `root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
`;

const group = `root:x:0:
www-data:x:33:
nobody:x:65534:
`;

const directories = ["bin/", "dev/", "etc/", "proc/", "root/", "run/", "sbin/", "sys/", "usr/", "usr/bin/", "usr/sbin/", "var/"];

const skeleton: readonly TarEntry[] = [
  ...[...directories, "var/log/", "var/www/"].map((path): TarEntry => ({ type: "directory", path })),
  { type: "directory", path: "tmp/", mode: 0o1777 },
  { type: "symlink", path: "var/run", target: "../run" },
  file("etc/passwd", passwd),
  file("etc/group", group),
  file("var/www/index.html", "hello from the pod\n"),
];

/** The suite looks for the server's name in its log. */
const httpd: Variant = {
  entries: [file("bin/start", "#!/bin/sh\necho httpd\nexec /bin/httpd -f -p 80 -h /var/www\n", 0o755)],
  settings: { Cmd: ["/bin/start"] },
};

const predefinedGroup: Variant = {
  entries: [
    file("etc/passwd", `${passwd}default-user:x:1000:1000::/home/default-user:/bin/sh\n`),
    file("etc/group", `${group}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n`),
  ],
  settings: { User: "1000" },
};

function user(name: string): Variant {
  return { settings: { User: name } };
}

function nginxFiles(port: number): TarEntry[] {
  const server = `server { listen ${port}; root /var/www; }`;
  return [
    ...["etc/nginx/", "var/lib/", "var/lib/nginx/", "var/log/nginx/"].map((path): TarEntry => ({ type: "directory", path })),
    file("etc/nginx/nginx.conf", `user www-data;\nerror_log stderr;\nevents {}\nhttp { access_log off; ${server} }\n`),
  ];
}

function file(path: string, content: string, mode = 0o644): TarEntry {
  return { type: "file", path, content, mode };
}

/** The suite puts the architecture that it was built for into a name. */
function goArchitecture(): string {
  return process.arch === "x64" ? "amd64" : process.arch;
}
