import type { ContainerEventResponse, GetEventsRequest } from "../../../api/gen/cri/v1/api.ts";
import type { Subscription } from "../../runtime/events.ts";
import type { Call } from "../call.ts";
import { encodeLifeEvent } from "../codec/encode-event.ts";

/** Not itself a generator, so that the client is subscribed before it is told that its stream is open. */
export function getContainerEvents(_request: GetEventsRequest, call: Call): AsyncGenerator<ContainerEventResponse> {
  return follow(call.runtime.events.subscribe(), call.signal);
}

/** Ends only by an error: the client's, the daemon's end, or events that were dropped. */
async function* follow(subscribed: Subscription, signal: AbortSignal): AsyncGenerator<ContainerEventResponse> {
  using subscription = subscribed;
  for (;;) yield encodeLifeEvent(await subscription.next(signal));
}
