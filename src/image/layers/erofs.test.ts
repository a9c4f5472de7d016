import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { access, lstat, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { gzipSync, zstdCompressSync } from "node:zlib";

import { sha256Of } from "../digest.ts";
import { buildLayer, type LayerResult } from "./layer-build.ts";
import { type FixtureEntry, longOf, tarOf } from "./tar-fixture.ts";
import { TarReader } from "./tar-reader.ts";

const run = promisify(execFile);

/** One of everything a layer may hold, in all the ways tar has to say it. Every directory is described, the root too. */
function everything(): FixtureEntry[] {
  const long = `${"d".repeat(90)}/${"n".repeat(200)}`;
  const map10 = Buffer.concat([
    Buffer.from("3\n8192\n512\n100000\n3\n5000000\n0\n".padEnd(512, "\0"), "latin1"),
    Buffer.from(`${"hello".padEnd(512, "!")}end`),
  ]);
  return [
    { name: "./", type: "5", mode: 0o755, mtime: 1_600_000_001 },
    { name: "./empty" },
    { name: "small", data: Buffer.from("small\n"), mode: 0o4755, uid: 1000, gid: 2000 },
    { name: "block", data: randomBytes(4096) },
    { name: "large", data: randomBytes(3_000_001), mtime: 1 },
    { name: "dir/", type: "5", mode: 0o1777 },
    { name: "dir/inner", data: Buffer.from("x") },
    { name: "replaced", data: Buffer.from("old") },
    { name: "replaced", data: Buffer.from("new content"), mode: 0o600 },
    { name: "dir2", type: "5", mode: 0o700 },
    { name: "dir2/./a//c", data: Buffer.from("normalised") },
    { name: "dir2/a", type: "5", mode: 0o755 },
    { name: "dir2", type: "5", mode: 0o750, uid: 7 },
    { name: "link", type: "2", link: "dir/inner", mode: 0o777 },
    { name: "absolute", type: "2", link: "/etc/passwd", mode: 0o777 },
    { name: "hard", type: "1", link: "small" },
    { name: "dir/hard-again", type: "1", link: "./small" },
    { name: "hard-to-link", type: "1", link: "link" },
    { name: "char", type: "3", major: 1, minor: 3, mode: 0o666 },
    { name: "block-device", type: "4", major: 259, minor: 70_000, mode: 0o660 },
    { name: "fifo", type: "6", mode: 0o620 },
    { name: "contiguous", type: "7", data: Buffer.from("seven") },
    { name: "big-ids", uid: 2 ** 31 + 5, gid: 3_000_000, mtime: 10_000_000_000 },
    { name: "before-1970", mtime: -1_000_000 },
    { name: "pax-time", pax: [["mtime", "1234567890.123456789"]] },
    { name: "pax-old", pax: [["mtime", "-5.25"]] },
    {
      name: "pax-ids",
      pax: [
        ["uid", "123456789"],
        ["gid", "4000000000"],
      ],
    },
    { name: "x", pax: [["path", "d".repeat(90)]], type: "5", mode: 0o755 },
    { name: "x", pax: [["path", long]], data: Buffer.from("long") },
    { name: "utf8", pax: [["path", Buffer.from("grün-日本").toString("latin1")]] },
    { name: "not-utf8-\xff\xfe", data: Buffer.from("bytes") },
    longOf("L", `${"d".repeat(90)}/gnu-${"m".repeat(180)}`),
    { name: "short", data: Buffer.from("gnu long name"), magic: "ustar  \0" },
    longOf("K", "t".repeat(1000)),
    { name: "gnu-long-link", type: "2", link: "short", mode: 0o777, magic: "ustar  \0" },
    {
      name: "x",
      pax: [
        ["path", "pax-long-link"],
        ["linkpath", `${"t/".repeat(2000)}t`],
      ],
      type: "2",
      mode: 0o777,
    },
    { name: "name", patch: (block) => void block.write("dir", 345, "latin1"), data: Buffer.from("in a ustar prefix") },
    {
      name: "xattrs",
      data: Buffer.from("x"),
      pax: [
        ["SCHILY.xattr.user.plain", "value"],
        ["SCHILY.xattr.user.binary", "\0\x01\xff\n=\x80"],
        ["SCHILY.xattr.user.empty", ""],
        ["SCHILY.xattr.trusted.t", "t".repeat(900)],
        ["SCHILY.xattr.security.capability", "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"],
      ],
    },
    { name: "dir-xattrs", type: "5", mode: 0o755, pax: [["SCHILY.xattr.user.on-a-directory", "y"]] },
    ...Array.from(
      { length: 600 },
      (_, index): FixtureEntry => ({ name: `dir-xattrs/${"many-".repeat(8)}${index}`, data: Buffer.from(`${index}`) }),
    ),
    { name: "dir-xattrs/-before-the-dots" },
    {
      name: "sparse-0.0",
      pax: [
        ["GNU.sparse.size", "200000"],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.offset", "4096"],
        ["GNU.sparse.numbytes", "5"],
        ["GNU.sparse.offset", "200000"],
        ["GNU.sparse.numbytes", "0"],
      ],
      data: Buffer.from("hello"),
    },
    {
      name: "x",
      pax: [
        ["GNU.sparse.size", "100000"],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.name", "sparse-0.1"],
        ["GNU.sparse.map", "50000,4,100000,0"],
      ],
      data: Buffer.from("data"),
    },
    {
      name: "x",
      pax: [
        ["GNU.sparse.major", "1"],
        ["GNU.sparse.minor", "0"],
        ["GNU.sparse.name", "sparse-1.0"],
        ["GNU.sparse.realsize", "5000000"],
      ],
      data: map10,
    },
  ];
}

describe("EROFS layers", { skip: process.getuid?.() === 0 ? false : "mounting needs root" }, () => {
  let dir = "";
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "aurae-cri-erofs-"));
  });
  after(async () => {
    await rm(dir, { recursive: true, force: true });
  });

  async function build(name: string, tar: Buffer, compressed = tar): Promise<LayerResult & { readonly path: string }> {
    const path = join(dir, `${name}.erofs`);
    const job = {
      digest: sha256Of(compressed),
      sizeBytes: compressed.length,
      diffId: sha256Of(tar),
      path,
      maxLayerBytes: 2 ** 40,
      maxEntries: 100_000,
    };
    const result = await buildLayer(job, pieces(compressed, 65_537));
    return { ...result, path };
  }

  /** Mounts while `use` runs. */
  async function mounted<T>(blob: string, use: (root: string) => Promise<T>): Promise<T> {
    const root = await mkdtemp(join(dir, "mnt-"));
    await run("mount", ["-t", "erofs", "-o", "ro,loop", blob, root]);
    try {
      return await use(root);
    } finally {
      await run("umount", [root]);
    }
  }

  /** Everything about a tree, one line per name: type, mode, owners, time to the nanosecond, size, content, links, device, xattrs, hard-link groups. */
  async function describeTree(root: string): Promise<string[]> {
    const file = join(dir, "tree.tar");
    await run("tar", [
      "--create",
      "--file",
      file,
      "--sort=name",
      "--numeric-owner",
      "--format=posix",
      "--xattrs",
      "--xattrs-include=*",
      "-C",
      root,
      ".",
    ]);
    const lines: string[] = [];
    let hash = createHash("sha256");
    let line = "";
    const reader = new TarReader({
      entry(entry) {
        hash = createHash("sha256");
        line = JSON.stringify({ ...entry, xattrs: [...entry.xattrs].sort(([a], [b]) => (a < b ? -1 : 1)) });
      },
      data: (bytes) => void hash.update(bytes),
      hole() {},
      endEntry: () => void lines.push(`${line} ${hash.digest("hex")}`),
    });
    reader.push(await readFile(file));
    reader.finish();
    await rm(file);
    return lines;
  }

  async function assertSameTree(ours: string, theirs: string): Promise<void> {
    const [left, right] = [await describeTree(ours), await describeTree(theirs)];
    assert.ok(left.length > 1);
    assert.deepEqual(
      [...new Set(left).symmetricDifference(new Set(right))].slice(0, 10).map((line) => line.slice(0, 500)),
      [],
    );
  }

  async function assertSameAsGnuTar(blob: string, tarFile: string): Promise<void> {
    const { stdout, stderr } = await run("fsck.erofs", [blob]);
    assert.doesNotMatch(stdout + stderr, /error|corrupt|invalid|bogus/i);
    const plain = await mkdtemp(join(dir, "plain-"));
    const how = ["--delay-directory-restore", "--xattrs", "--xattrs-include=*", "--same-owner", "-p", "--numeric-owner", "-P"];
    await run("tar", ["--extract", "--file", tarFile, ...how, "-C", plain]);
    await mounted(blob, (root) => assertSameTree(root, plain));
    await rm(plain, { recursive: true });
  }

  it("hold one of every tar feature as GNU tar extracts it", async () => {
    const tar = tarOf(everything());
    const tarFile = join(dir, "everything.tar");
    await writeFile(tarFile, tar);
    const { path, blobBytes } = await build("everything", tar);
    assert.equal((await stat(path)).size, blobBytes);
    assert.equal(blobBytes % (2 << 20), 0);
    await assertSameAsGnuTar(path, tarFile);
  });

  it("hold the old GNU sparse format, its continuation blocks included", async () => {
    const source = join(dir, "sparse-source");
    await mkdir(source);
    await run(
      "sh",
      [
        "-c",
        "for i in $(seq 0 39); do printf data-$i | dd of=many bs=1 seek=$((i * 65536)) conv=notrunc status=none; done; truncate -s 3000000 many; truncate -s 100000 all-hole; printf x > few; truncate -s 20000 few",
      ],
      { cwd: source },
    );
    for (const format of ["gnu", "posix"]) {
      for (const version of format === "gnu" ? ["1.0"] : ["0.0", "0.1", "1.0"]) {
        const tarFile = join(dir, `sparse-${format}-${version}.tar`);
        await run("tar", [
          "--create",
          "--file",
          tarFile,
          "--sparse",
          "--hole-detection=raw",
          `--format=${format}`,
          ...(format === "gnu" ? [] : [`--sparse-version=${version}`]),
          "-C",
          source,
          ".",
        ]);
        const { path } = await build(`sparse-${format}-${version}`, await readFile(tarFile));
        await assertSameAsGnuTar(path, tarFile);
      }
    }
  });

  it("hold the files of Debian packages", async () => {
    const tarFile = join(dir, "packages.tar");
    const list = join(dir, "packages.list");
    await writeFile(list, (await filesOfPackages("coreutils", "perl-base", "bash")).join("\n"));
    await run("tar", ["--create", "--file", tarFile, "--no-recursion", "--xattrs", "--xattrs-include=*", "-C", "/", "-T", list]);
    const tar = await readFile(tarFile);
    const { path } = await build("packages", tar, gzipSync(tar, { level: 1 }));
    await assertSameAsGnuTar(path, tarFile);
  });

  it("are the same bytes for the same tar, however it was compressed", async () => {
    const tar = tarOf(everything());
    const half = Math.floor(tar.length / 2);
    const members = Buffer.concat([gzipSync(tar.subarray(0, half)), gzipSync(tar.subarray(half))]);
    const frames = Buffer.concat([zstdCompressSync(tar.subarray(0, half)), zstdCompressSync(tar.subarray(half))]);
    const blobs: string[] = [];
    for (const [name, bytes] of [
      ["plain", tar],
      ["gzip", gzipSync(tar)],
      ["members", members],
      ["zstd", zstdCompressSync(tar)],
      ["frames", frames],
    ] as const) {
      blobs.push(
        createHash("sha256")
          .update(await readFile((await build(name, tar, bytes)).path))
          .digest("hex"),
      );
    }
    assert.equal(new Set(blobs).size, 1);
  });

  it("hide what lower layers hold, as overlayfs understands it", async () => {
    const lower = await build(
      "lower",
      tarOf([
        { name: "gone" },
        { name: "stays" },
        { name: "opaque/", type: "5" },
        { name: "opaque/old" },
        { name: "redone/", type: "5" },
        { name: "redone/old" },
        { name: "late/", type: "5" },
        { name: "late/old" },
        { name: "merged/old" },
      ]),
    );
    const upper = await build(
      "upper",
      tarOf([
        { name: ".wh.gone" },
        { name: "opaque/.wh..wh..opq" },
        { name: "opaque/new" },
        { name: ".wh.redone" },
        { name: "redone/new" },
        { name: "late/new" },
        { name: ".wh.late" },
        { name: "merged/new" },
        { name: ".wh..wh.plnk" },
        { name: "kept" },
        { name: ".wh.kept" },
      ]),
    );
    await mounted(lower.path, (below) =>
      mounted(upper.path, async (above) => {
        const root = await mkdtemp(join(dir, "overlay-"));
        await run("mount", ["-t", "overlay", "-o", `ro,lowerdir=${above}:${below}`, "overlay", root]);
        try {
          assert.deepEqual((await readdir(root)).sort(), ["kept", "late", "merged", "opaque", "redone", "stays"]);
          assert.deepEqual(await readdir(join(root, "opaque")), ["new"]);
          assert.deepEqual(await readdir(join(root, "redone")), ["new"]);
          assert.deepEqual(await readdir(join(root, "late")), ["new"]);
          assert.deepEqual((await readdir(join(root, "merged"))).sort(), ["new", "old"]);
        } finally {
          await run("umount", [root]);
        }
      }),
    );
  });

  it("follow links of their own tree and never leave it", async () => {
    const { path } = await build(
      "links",
      tarOf([
        { name: "usr/lib/", type: "5" },
        { name: "lib", type: "2", link: "usr/lib" },
        { name: "lib/a", data: Buffer.from("a") },
        { name: "up", type: "2", link: "../../../usr" },
        { name: "up/b", data: Buffer.from("b") },
        { name: "root", type: "2", link: "/" },
        { name: "root/usr/lib/c" },
      ]),
    );
    await mounted(path, async (root) => {
      assert.deepEqual((await readdir(join(root, "usr/lib"))).sort(), ["a", "c"]);
      assert.deepEqual((await readdir(join(root, "usr"))).sort(), ["b", "lib"]);
    });
  });

  it("are nothing when the layer is bad", async () => {
    const tar = tarOf([{ name: "a", data: randomBytes(5000) }]);
    const wrong = {
      digest: sha256Of(tar),
      sizeBytes: tar.length,
      diffId: sha256Of("other"),
      path: join(dir, "wrong.erofs"),
      maxLayerBytes: 2 ** 40,
      maxEntries: 10,
    };
    await assert.rejects(buildLayer(wrong, pieces(tar, 100)), { name: "ImageError", message: /diff-id/ });
    await assert.rejects(access(wrong.path));
    await assert.rejects(
      buildLayer({ ...wrong, diffId: sha256Of(tar), digest: sha256Of("other") }, pieces(tar, 100)),
      /layer blob has digest/,
    );
    await assert.rejects(buildLayer({ ...wrong, diffId: sha256Of(tar), maxLayerBytes: 1000 }, pieces(tar, 100)), /more than 1000 bytes/);
    await assert.rejects(access(wrong.path));
  });
});

async function* pieces(bytes: Buffer, sizeBytes: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += sizeBytes) yield bytes.subarray(at, at + sizeBytes);
}

/** What installed packages put on this machine, with every directory above, as paths from the root without links on the way. */
async function filesOfPackages(...packages: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await run("dpkg", ["-L", ...packages], { maxBuffer: 1 << 26 });
  const found = new Set(["."]);
  for (const line of stdout.split("\n").filter((path) => path.startsWith("/") && path !== "/.")) {
    // Documentation may have been left out of a small system.
    const parent = await realpath(dirname(line)).catch(() => undefined);
    if (parent === undefined || (await lstat(line).catch(() => undefined)) === undefined) continue;
    for (let path = join(parent, basename(line)); path !== "/"; path = dirname(path)) found.add(`.${path}`);
  }
  return [...found].sort();
}
