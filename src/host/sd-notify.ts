import { HostError } from "./errors.ts";
import { run } from "./process.ts";

/**
 * Tells the service manager behind `socket` (`NOTIFY_SOCKET`) a state such as `READY=1`.
 *
 * Node has no unix datagram sockets, and the packages that add them are native code for one message per life of the process. systemd's
 * own tool is there wherever systemd listens, and sends under our pid, so `NotifyAccess=main` is enough.
 */
export async function notifyServiceManager(socket: string, state: string, options: { readonly signal: AbortSignal }): Promise<void> {
  const command = { file: "systemd-notify", args: [state], env: { NOTIFY_SOCKET: socket, PATH: "/usr/bin:/bin" } };
  const { exitCode, signal, stderr } = await run(command, { signal: options.signal, timeoutMs: 5_000 });
  if (exitCode === 0) return;
  throw new HostError(
    { code: "ERR_SERVICE_NOTIFY", state, exitCode, signal },
    `systemd-notify ${state} ended with ${exitCode ?? signal}: ${stderr.trim()}`,
  );
}
