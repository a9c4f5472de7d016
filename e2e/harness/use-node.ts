import { after, before } from "node:test";
import type { NodeOptions } from "./node.ts";
import { Node } from "./node.ts";

/**
 * A node for all tests of a file, with `images` pulled. It is drained and taken down after the last one; what is left behind then fails the file.
 */
export function useNode(options: NodeOptions & { readonly images?: readonly string[] } = {}): () => Node {
  let node: Node | undefined;
  before(async () => {
    node = await Node.start(options);
    for (const name of options.images ?? ["busybox"]) await node.pull(name);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
  });
  return () => {
    if (node === undefined) throw new Error("the node was not started");
    return node;
  };
}
