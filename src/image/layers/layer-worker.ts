import { parentPort } from "node:worker_threads";

import { buildLayer, type LayerJob } from "./layer-build.ts";
import { type FromWorker, type ToWorker, toWire } from "./layer-protocol.ts";

/** The thread side of `LayerWorkers`: feeds what arrives into one `buildLayer` after the other. */
function main(): void {
  const port = parentPort;
  if (port === null) throw new Error("layer-worker.ts runs on a worker thread only");
  const post = (message: FromWorker): void => port.postMessage(message);
  let inbox = new Inbox(post);
  port.on("message", (message: ToWorker) => {
    switch (message.type) {
      case "start":
        inbox = new Inbox(post);
        void runJob(message.job, inbox, post);
        return;
      case "chunk":
        return inbox.push(Buffer.from(message.bytes.buffer, message.bytes.byteOffset, message.bytes.byteLength));
      case "end":
        return inbox.end(undefined);
      case "abort":
        return inbox.end(new Error("the source of the layer ended early"));
    }
  });
}

async function runJob(job: LayerJob, inbox: Inbox, post: (message: FromWorker) => void): Promise<void> {
  try {
    post({ type: "done", result: await buildLayer(job, inbox) });
  } catch (error) {
    post({ type: "failed", error: toWire(error) });
  }
}

/** Chunks that wait for the pipeline. Bounded by the sender, who goes no further than its credit. */
class Inbox implements AsyncIterable<Buffer> {
  readonly #post: (message: FromWorker) => void;
  readonly #chunks: Buffer[] = [];
  #ended = false;
  #failure: Error | undefined;
  #wake: () => void = () => {};

  constructor(post: (message: FromWorker) => void) {
    this.#post = post;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#wake();
  }

  end(failure: Error | undefined): void {
    this.#ended = true;
    this.#failure = failure;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        yield chunk;
        this.#post({ type: "credit", sizeBytes: chunk.length });
      } else if (this.#ended) {
        return;
      } else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
      }
    }
  }
}

main();
