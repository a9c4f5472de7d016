import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { AgentError, type AgentFact } from "../agent/errors.ts";
import type { ContainerRecord } from "./container.ts";
import type { ContainerConfig } from "./container-config.ts";
import { RuntimeError } from "./errors.ts";
import { findImageVolumes, type ImageVolume, layerClaimsOf, mountImageVolumes } from "./image-volumes.ts";
import { hostMount, container as plain } from "./oci/test-input.ts";
import type { Image, Images } from "./ports.ts";
import type { Realm } from "./realm.ts";
import type { Container } from "./runtime.ts";

const ID = `sha256:${"a".repeat(64)}`;

function imageMount(image: string, subPath = "") {
  return hostMount("/v", { source: { type: "image", image, subPath }, readonly: "yes" });
}

const config: ContainerConfig = { ...plain, mounts: [hostMount("/data"), imageMount("tools:1"), imageMount(ID, "etc")] };
const volumes: readonly ImageVolume[] = [
  { index: 1, imageId: ID },
  { index: 2, imageId: ID },
];

/** Images of which one is known, by tag and by id. */
const images = { find: (name: string) => (name === ID || name === "tools:1" ? ({ id: ID } as Image) : undefined) } as unknown as Images;

function record(changes: Partial<ContainerRecord> = {}): ContainerRecord {
  return { id: "c", imageId: "sha256:own", config, imageVolumes: volumes, ...changes } as ContainerRecord;
}

const realm = {
  mountLayers: async (owner: string) => [`/layers/${owner}`],
  imageVolumePath: (_container: Container, index: number) => `/c/image-${index}`,
} as unknown as Realm;

/** A container whose auraed answers every call by `answer`. */
function prepared(answer: (request: unknown) => Promise<object>): Container {
  return { record: record(), pod: { agent: { call: (_method: unknown, request: unknown) => answer(request) } } } as unknown as Container;
}

const wait = { signal: new AbortController().signal };

suite("images as volumes", () => {
  test("are found by any name and kept by id, with their place among the mounts", () => {
    assert.deepEqual(findImageVolumes(images, config), volumes);
    assert.throws(
      () => findImageVolumes(images, { ...config, mounts: [hostMount("/data"), imageMount("gone:1")] }),
      (error: unknown) =>
        error instanceof RuntimeError &&
        error.fact.code === "ERR_IMAGE_VOLUME" &&
        error.message === "config.mounts[1].image: image 'gone:1' is not on this node: pull it first",
    );
  });

  test("each has claims of its own, beside the container's image", () => {
    assert.deepEqual(layerClaimsOf(record()), [
      ["c", "sha256:own"],
      ["c/1", ID],
      ["c/2", ID],
    ]);
    const { imageVolumes: _, ...old } = record();
    assert.deepEqual(layerClaimsOf(old), [["c", "sha256:own"]]);
  });

  test("are mounted one by one, each where the spec binds it from", async () => {
    const requests: unknown[] = [];
    await mountImageVolumes(
      images,
      realm,
      prepared(async (request) => {
        requests.push(request);
        return {};
      }),
      wait,
    );
    assert.deepEqual(requests, [
      { containerId: "c", lowerPaths: ["/layers/c/1"], subPath: "", mountPath: "/c/image-1" },
      { containerId: "c", lowerPaths: ["/layers/c/2"], subPath: "etc", mountPath: "/c/image-2" },
    ]);
  });

  const failure = (fact: AgentFact) =>
    mountImageVolumes(
      images,
      realm,
      prepared(() => Promise.reject(new AgentError(fact, "because"))),
      wait,
    );

  test("one that auraed refuses is told by its field", async () => {
    await assert.rejects(
      failure({ code: "ERR_AGENT_REFUSED", method: "MountImage", status: 3 }),
      (error: unknown) => error instanceof RuntimeError && error.message === "config.mounts[1].image: because",
    );
  });

  test("an auraed that does not answer is not the image's fault", async () => {
    await assert.rejects(failure({ code: "ERR_AGENT_UNREACHABLE", method: "MountImage" }), AgentError);
  });
});
