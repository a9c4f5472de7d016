import type { Readable } from "node:stream";

/**
 * The chunks of a stream, read ahead of the consumer: all that has come in one turn of the event loop, and no more once `limitBytes` wait.
 * (Iterating a stream reads one chunk per turn.) Throws the stream's error; a stream that is destroyed without one just ends. Leaving the
 * loop stops reading and leaves the stream open.
 */
export async function* readAhead(stream: Readable, limitBytes: number): AsyncGenerator<Buffer, void, void> {
  const chunks: Buffer[] = [];
  let waitingBytes = 0;
  let over = stream.destroyed || stream.readableEnded;
  let failure: Error | null = stream.errored;
  let changed = Promise.withResolvers<void>();
  const onData = (chunk: Buffer) => {
    chunks.push(chunk);
    waitingBytes += chunk.length;
    if (waitingBytes >= limitBytes) stream.pause();
    changed.resolve();
  };
  const onOver = (error?: unknown) => {
    over = true;
    if (error instanceof Error) failure ??= error;
    changed.resolve();
  };
  stream.on("data", onData).on("end", onOver).on("close", onOver).on("error", onOver);
  try {
    for (;;) {
      const chunk = chunks.shift();
      if (chunk !== undefined) {
        waitingBytes -= chunk.length;
        yield chunk;
        continue;
      }
      if (failure !== null) throw failure;
      if (over) return;
      changed = Promise.withResolvers<void>();
      stream.resume();
      await changed.promise;
    }
  } finally {
    stream.off("data", onData).off("end", onOver).off("close", onOver).off("error", onOver);
    stream.pause();
  }
}
