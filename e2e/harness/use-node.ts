import { after, before } from "node:test";
import type { NodeOptions } from "./node.ts";
import { Node } from "./node.ts";

export interface UseNodeOptions extends NodeOptions {
  /** Pulled before the first test. Default: busybox. */
  readonly images?: readonly string[];
  /** What else the file needs before its first test. */
  readonly prepare?: (node: Node) => Promise<void>;
}

/**
 * A node for all tests of a file, with `images` pulled. It is drained and taken down after the last one; what is left behind then fails the file.
 */
export function useNode(options: UseNodeOptions = {}): () => Node {
  let node: Node | undefined;
  before(async () => {
    node = await Node.start(options);
    for (const name of options.images ?? ["busybox"]) await node.pull(name);
    await options.prepare?.(node);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
  });
  return () => {
    if (node === undefined) throw new Error("the node was not started");
    return node;
  };
}
