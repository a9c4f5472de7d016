import { PodServiceService } from "../../api/gen/aurae/pod/v0/pod.ts";
import { messageOf } from "../lib/coded-error.ts";
import { failpoint } from "../lib/failpoint.ts";
import { nowNs } from "../lib/time.ts";
import { checkTarget } from "./container-spec.ts";
import { wrongState } from "./errors.ts";
import { getContainer, readySandbox } from "./lookup.ts";
import type { Container, Runtime } from "./runtime.ts";
import { saveContainer } from "./save.ts";
import { containerPhase } from "./timeline.ts";

/** Exit code of a container whose first process could not be started. */
const START_FAILED_EXIT_CODE = 128;

/** Starts a CREATED container. One that cannot be started is EXITED with reason StartError, and the cause is thrown. */
export async function startContainer(
  runtime: Runtime,
  id: string,
  options: { readonly signal: AbortSignal; readonly requestId: string },
): Promise<void> {
  const container = getContainer(runtime, id);
  await runtime.actions.run(container.pod.id, options.signal, () => start(runtime, container, options.requestId));
}

async function start(runtime: Runtime, container: Container, requestId: string): Promise<void> {
  readySandbox(container.pod);
  const { phase } = container.record.state;
  if (phase !== "created") throw wrongState("container", container.id, phase, "only a CREATED container can be started");
  // It was looked at when this one was created, and may have ended since.
  checkTarget(container);
  failpoint("runtime.container.start.before");
  try {
    // Not the caller's signal: a start that was begun is finished, so that its outcome is known.
    const signal = AbortSignal.timeout(START_TIMEOUT_MS);
    const { startedAtNs } = await containerPhase(runtime, container, "start", () =>
      container.pod.agent.call(PodServiceService.startContainer, { containerId: container.id }, { signal, requestId }),
    );
    container.apply({ type: "started", startedAtNs: String(startedAtNs) });
  } catch (error) {
    const exit = {
      finishedAtNs: String(nowNs()),
      exitCode: START_FAILED_EXIT_CODE,
      reason: "StartError",
      message: messageOf(error),
    } as const;
    container.apply({ type: "exited", startedAtNs: "0", exit });
    await saveContainer(runtime, container);
    throw error;
  }
  failpoint("runtime.container.start.after");
  await saveContainer(runtime, container);
}

const START_TIMEOUT_MS = 60_000;
