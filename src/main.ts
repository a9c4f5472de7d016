/** Arguments and environment to configuration, run until a signal, exit code. */
import { mkdirSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { join } from "node:path";
import type { Outcome } from "./cli/outcome.ts";
import { parseCommand } from "./config/command.ts";
import type { Config } from "./config/config.ts";
import { type Environment, readEnvironment } from "./config/env.ts";
import { ConfigError } from "./config/errors.ts";
import { helpText } from "./config/help.ts";
import { loadConfig } from "./config/load.ts";
import { renderConfig, renderDefault } from "./config/render.ts";
import { notifyServiceManager } from "./host/sd-notify.ts";
import { messageOf } from "./lib/coded-error.ts";
import { armFailpoints } from "./lib/failpoint.ts";
import type { Log } from "./lib/log.ts";
import { createLog } from "./lib/log-winston.ts";
import { RUNTIME_NAME, RUNTIME_VERSION } from "./lib/version.ts";

/** How long a drained process may be kept alive by something that was not closed. */
const LINGER_MS = 5_000;
/** Of all checks; a trial boot takes seconds. */
const CHECK_TIMEOUT_MS = 120_000;

async function main(argv: readonly string[], environment: Environment): Promise<number> {
  const command = parseCommand(argv);
  switch (command.kind) {
    case "serve":
      return await serve(loadConfig(command.flags), environment);
    case "why": {
      const { why } = await import("./cli/why.ts");
      return tell(await why(command, loadConfig(command.flags)));
    }
    case "check": {
      const [{ check }, { VmProbe }, { vmOptions }, { readBootId }] = await Promise.all([
        import("./cli/check.ts"),
        import("./vm/probe.ts"),
        import("./vm-options.ts"),
        import("./host/boot-id.ts"),
      ]);
      const signal = AbortSignal.timeout(CHECK_TIMEOUT_MS);
      const config = loadConfig(command.flags);
      return tell(await check(command, config, { virtualization: new VmProbe(vmOptions(config, readBootId())), signal }));
    }
    case "config-show":
      return print(renderConfig(loadConfig(command.flags)));
    case "config-validate":
      loadConfig({ config: command.path });
      return 0;
    case "config-default":
      return print(renderDefault());
    case "version":
      return print(`${RUNTIME_NAME} ${RUNTIME_VERSION} (CRI v1, Node ${process.versions.node})\n`);
    case "help":
      return print(helpText);
  }
}

function tell({ exitCode, stdout, stderr }: Outcome): number {
  process.stderr.write(stderr);
  process.stdout.write(stdout);
  return exitCode;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

async function serve(config: Config, environment: Environment): Promise<number> {
  armFailpoints(environment.failpoints);
  await using log = createLog(config.log);
  process.on("uncaughtExceptionMonitor", (error, origin) => log.error("crashed", { origin }, error));
  const stop = stopOnSignals(log);
  try {
    await serveUntil(stop, config, { log, environment });
    log.info("stopped");
    return 0;
  } catch (error) {
    log.error("failed", {}, error);
    return 1;
  }
}

interface ServeModules {
  readonly log: Log;
  readonly environment: Environment;
}

async function serveUntil(stop: AbortSignal, config: Config, { log, environment }: ServeModules): Promise<void> {
  log.info("starting", { version: RUNTIME_VERSION, pid: process.pid, root: config.root });
  cacheCompiledCode(config.root);
  // Loaded only now: the other commands need none of it.
  const { openDaemon } = await import("./daemon.ts");
  await using _ = await openDaemon(config, { log, failpoints: environment.failpoints });
  await notify(environment.notifySocket, "READY=1", log);
  // Node would write it at exit, and a daemon that is killed has none.
  flushCompileCache();
  await aborted(stop);
  log.info("stopping", { reason: messageOf(stop.reason) });
  await notify(environment.notifySocket, "STOPPING=1", log);
}

/**
 * Stripping types and compiling takes half a second of each start; the cache leaves a quarter of it and saves 20 MB. It lies in the root
 * and not where Node would put it, in /tmp: what is in it gets executed.
 */
function cacheCompiledCode(root: string): void {
  const directory = join(root, "compile-cache");
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  enableCompileCache(directory);
}

/** Aborts with the first SIGTERM or SIGINT; the second ends the process at once. */
function stopOnSignals(log: Log): AbortSignal {
  const controller = new AbortController();
  const onSignal = (signal: NodeJS.Signals, number: number): void => {
    if (!controller.signal.aborted) return controller.abort(new Error(signal));
    log.warn("second signal: leaving without waiting", { signal });
    process.exit(128 + number);
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  return controller.signal;
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}

/** A manager that cannot be told is no reason to stop serving. */
async function notify(socket: string | undefined, state: string, log: Log): Promise<void> {
  if (socket === undefined) return;
  try {
    await notifyServiceManager(socket, state, { signal: AbortSignal.timeout(LINGER_MS) });
  } catch (error) {
    log.warn("service manager not told", { state }, error);
  }
}

/** Errors of the command line and the configuration are for the person who typed: no stack. */
function explain(error: unknown): number {
  if (!(error instanceof ConfigError)) throw error;
  process.stderr.write(`aurae-cri: ${error.message.replaceAll("\n", "\naurae-cri: ")}\n`);
  return 2;
}

process.exitCode = await main(process.argv.slice(2), readEnvironment(process.env)).catch(explain);
setTimeout(() => {
  process.stderr.write(`aurae-cri: ended with open handles: ${process.getActiveResourcesInfo().join(" ")}\n`);
  process.exit();
}, LINGER_MS).unref();
