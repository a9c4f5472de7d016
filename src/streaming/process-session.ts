import { setTimeout as delay } from "node:timers/promises";

import { joinSignals } from "../lib/abort.ts";
import { messageOf } from "../lib/coded-error.ts";
import { type LiveProcess, openAttach, openExec } from "../runtime/live-process.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { AttachStreamRequest, ExecStreamRequest } from "../runtime/stream-request.ts";
import type { Channels, WindowSize } from "./channels.ts";
import type { Outcome } from "./status.ts";

/** A client with a window says its size at once. Waiting for it spares the program a window of no size. */
const FIRST_SIZE_MS = 100;

/** What each session works with. */
export interface SessionContext {
  readonly runtime: Runtime;
  readonly requestId: string;
  /** Aborts when the daemon stops. */
  readonly signal: AbortSignal;
}

/** Serves one client of an exec or attach to the end. Never rejects: the outcome is told to the client and returned. */
export async function serveProcess(
  request: ExecStreamRequest | AttachStreamRequest,
  channels: Channels,
  context: SessionContext,
): Promise<Outcome> {
  let outcome: Outcome;
  try {
    outcome = await runProcess(request, channels, context);
  } catch (error) {
    const { signal } = context;
    const cause = channels.gone.aborted ? channels.gone.reason : signal.aborted ? signal.reason : error;
    outcome = { kind: "failure", message: messageOf(cause) };
  }
  try {
    await channels.finish(outcome);
  } catch {
    // The client has left: there is nobody to tell.
  }
  return outcome;
}

async function runProcess(request: ExecStreamRequest | AttachStreamRequest, channels: Channels, context: SessionContext): Promise<Outcome> {
  using scope = joinSignals(context.signal, channels.gone);
  const options = { signal: scope.signal, requestId: context.requestId };
  const sizes = channels.sizes === undefined ? undefined : new Sizes(channels.sizes);
  const size = request.kind === "exec" ? await sizes?.first(scope.signal) : undefined;
  using live =
    request.kind === "exec" ? openExec(context.runtime, request, { ...options, size }) : openAttach(context.runtime, request, options);
  void feedStdin(channels, live);
  void sizes?.follow((next) => live.resize(next));
  for await (const output of live.outputs()) {
    if (output.kind === "exit") return { kind: "exit", code: output.code };
    await channels.write(output.kind, output.bytes);
  }
  return { kind: "success" };
}

/** The end of a lost client is no end of input: the call's own end tells it. */
async function feedStdin(channels: Channels, live: LiveProcess): Promise<void> {
  if (channels.stdin === undefined) return;
  for await (const bytes of channels.stdin) await live.writeStdin(bytes);
  if (!channels.gone.aborted) await live.closeStdin();
}

/** Window sizes as they come: the first one may be waited for. */
class Sizes {
  readonly #first = Promise.withResolvers<WindowSize | undefined>();
  #latest: WindowSize | undefined;
  #resize: ((size: WindowSize) => Promise<void>) | undefined;

  constructor(source: AsyncIterable<WindowSize>) {
    void this.#read(source);
  }

  first(signal: AbortSignal): Promise<WindowSize | undefined> {
    return Promise.race([this.#first.promise, delay(FIRST_SIZE_MS, undefined, { signal }).catch(() => undefined)]);
  }

  async follow(resize: (size: WindowSize) => Promise<void>): Promise<void> {
    this.#resize = resize;
    if (this.#latest !== undefined) await resize(this.#latest);
  }

  async #read(source: AsyncIterable<WindowSize>): Promise<void> {
    for await (const size of source) {
      this.#latest = size;
      this.#first.resolve(size);
      await this.#resize?.(size);
    }
    this.#first.resolve(undefined);
  }
}
