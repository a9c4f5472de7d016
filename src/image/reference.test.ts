import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { ImageError } from "./errors.ts";
import { formatReference, parseReference } from "./reference.ts";

const hex = "a".repeat(64);

describe("parseReference", () => {
  const good: readonly (readonly [string, string])[] = [
    ["busybox", "docker.io/library/busybox:latest"],
    ["busybox:1.36", "docker.io/library/busybox:1.36"],
    ["library/busybox", "docker.io/library/busybox:latest"],
    ["user/app:v1", "docker.io/user/app:v1"],
    ["docker.io/busybox", "docker.io/library/busybox:latest"],
    ["index.docker.io/library/busybox", "docker.io/library/busybox:latest"],
    ["registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"],
    ["localhost/a", "localhost/a:latest"],
    ["localhost:5000/a/b/c", "localhost:5000/a/b/c:latest"],
    ["127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b"],
    ["[::1]:5000/a", "[::1]:5000/a:latest"],
    ["HOST/a", "HOST/a:latest"],
    ["a/b_c/d__e/f-g/h---i.j", "docker.io/a/b_c/d__e/f-g/h---i.j:latest"],
    [`busybox@sha256:${hex}`, `docker.io/library/busybox@sha256:${hex}`],
    [`busybox:1.36@sha256:${hex}`, `docker.io/library/busybox@sha256:${hex}`],
    [`host:1/a:t@sha256:${hex}`, `host:1/a@sha256:${hex}`],
    [`a:${"t".repeat(128)}`, `docker.io/library/a:${"t".repeat(128)}`],
    [`h.io/${"p".repeat(250)}`, `h.io/${"p".repeat(250)}:latest`],
  ];
  for (const [text, name] of good) {
    it(`reads ${text.slice(0, 50)}`, () => {
      assert.equal(formatReference(parseReference(text)), name);
      assert.equal(formatReference(parseReference(name)), name, "the canonical form reads as itself");
    });
  }

  const bad: readonly (readonly [string, string])[] = [
    ["", "reference"],
    [hex, "repository"],
    ["Upper", "repository"],
    ["a//b", "repository"],
    ["/a", "repository"],
    ["a/", "repository"],
    ["h.io/", "repository"],
    ["a..b", "repository"],
    ["a___b", "repository"],
    ["a.-b", "repository"],
    ["-a", "repository"],
    ["a b", "repository"],
    ["../a", "registry"],
    ["https://h.io/a", "registry"],
    ["h_o.st:5000/a", "registry"],
    ["h.io:99999/a", "registry"],
    ["a:", "tag"],
    ["a:.x", "tag"],
    [`a:${"t".repeat(129)}`, "tag"],
    ["a@", "digest"],
    ["a@sha256:abc", "digest"],
    [`a@sha256:${hex.toUpperCase()}`, "digest"],
    [`a@sha512:${hex}${hex}`, "digest"],
    [`a@sha256:${hex}@sha256:${hex}`, "digest"],
    [`h.io/${"p".repeat(251)}`, "repository"],
  ];
  for (const [text, part] of bad) {
    it(`refuses ${JSON.stringify(text.slice(0, 50))} because of its ${part}`, () => {
      assert.throws(
        () => parseReference(text),
        (error) =>
          error instanceof ImageError &&
          error.fact.code === "ERR_INVALID_REFERENCE" &&
          error.fact.part === part &&
          error.message.includes(part),
      );
    });
  }
});
