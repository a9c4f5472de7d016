import { untilAborted } from "../lib/abort.ts";
import type { Log } from "../lib/log.ts";
import type { ContainerRecord, ContainerState } from "./container.ts";
import { RuntimeError } from "./errors.ts";
import { type PodRecord, type PodState, sandboxOf } from "./pod.ts";

export type EventKind = "created" | "started" | "stopped" | "deleted";

/** A step in the life of a pod or of one of its containers, with what was true of the whole pod at that moment. */
export interface LifeEvent {
  readonly kind: EventKind;
  /** The container's; the pod's own when it is the pod that changed. */
  readonly id: string;
  readonly atNs: bigint;
  readonly pod: PodRecord;
  readonly containers: readonly ContainerRecord[];
}

/** The events that a container has been through in a state. One that could not be started was never `started`. */
export function containerEventsUntil(state: ContainerState): readonly EventKind[] {
  switch (state.phase) {
    case "creating":
      return [];
    case "created":
      return ["created"];
    case "running":
      return ["created", "started"];
    case "exited":
      return state.startedAtNs === "0" ? ["created", "stopped"] : ["created", "started", "stopped"];
  }
}

/** The same of a pod. It is `stopped` when nothing of it is left to tear down, or when it went down by itself. */
export function podEventsUntil(state: PodState): readonly EventKind[] {
  if (state.phase === "creating") return [];
  const begun: readonly EventKind[] = sandboxOf(state) === undefined ? ["created"] : ["created", "started"];
  return state.phase === "stopped" || state.phase === "crashed" ? [...begun, "stopped"] : begun;
}

/** Hands each event to every subscriber, in the order of publication. Nothing is kept for those who come later. */
export class Events {
  readonly #log: Log;
  readonly #maxWaiting: number;
  readonly #subscriptions = new Set<Subscription>();
  #closed = false;

  /** `maxWaiting`: for one slow client; each holds references only. */
  constructor(options: { readonly maxWaiting: number }, modules: { readonly log: Log }) {
    this.#log = modules.log;
    this.#maxWaiting = options.maxWaiting;
  }

  publish(event: LifeEvent): void {
    for (const subscription of this.#subscriptions) subscription.offer(event);
  }

  /** Events from this moment on. Dispose of it when no more are wanted. Throws `ERR_SHUTTING_DOWN` after `close`. */
  subscribe(): Subscription {
    if (this.#closed) throw shuttingDown();
    const subscription: Subscription = new Subscription({
      maxWaiting: this.#maxWaiting,
      onDispose: (dropped) => {
        this.#subscriptions.delete(subscription);
        if (dropped > 0) this.#log.warn("a client of the events was too slow: its stream was ended", { dropped });
      },
    });
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /** Ends every subscription with `ERR_SHUTTING_DOWN` once it has handed out what waits. */
  close(): void {
    this.#closed = true;
    for (const subscription of this.#subscriptions) subscription.end(shuttingDown());
  }
}

/** One client's events. */
export class Subscription implements Disposable {
  readonly #maxWaiting: number;
  readonly #onDispose: (dropped: number) => void;
  #waiting: LifeEvent[] = [];
  #changed = Promise.withResolvers<void>();
  #end: RuntimeError | undefined;
  #dropped = 0;

  constructor(parts: { readonly maxWaiting: number; readonly onDispose: (dropped: number) => void }) {
    this.#maxWaiting = parts.maxWaiting;
    this.#onDispose = parts.onDispose;
  }

  offer(event: LifeEvent): void {
    if (this.#end !== undefined) return;
    if (this.#dropped === 0 && this.#waiting.length < this.#maxWaiting) {
      this.#waiting.push(event);
    } else {
      // A stream with a gap is worth nothing to a client that has to list again anyway.
      this.#dropped += this.#waiting.length + 1;
      this.#waiting = [];
    }
    this.#changed.resolve();
  }

  /** The first reason stays. */
  end(reason: RuntimeError): void {
    this.#end ??= reason;
    this.#changed.resolve();
  }

  /** Waits for the next event. Throws `ERR_EVENTS_DROPPED`, `ERR_SHUTTING_DOWN` or the signal's reason. */
  async next(signal: AbortSignal): Promise<LifeEvent> {
    for (;;) {
      signal.throwIfAborted();
      const event = this.#waiting.shift();
      if (event !== undefined) return event;
      if (this.#dropped > 0) throw tooSlow(this.#dropped);
      if (this.#end !== undefined) throw this.#end;
      this.#changed = Promise.withResolvers();
      await untilAborted(this.#changed.promise, signal);
    }
  }

  [Symbol.dispose](): void {
    this.#onDispose(this.#dropped);
  }
}

function tooSlow(count: number): RuntimeError {
  return new RuntimeError(
    { code: "ERR_EVENTS_DROPPED" },
    `${count} events were dropped because they were read too slowly: list, and call again`,
  );
}

function shuttingDown(): RuntimeError {
  return new RuntimeError({ code: "ERR_SHUTTING_DOWN" }, "the daemon is shutting down: call again when it is back");
}
