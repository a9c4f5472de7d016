import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { exited, terminate } from "./command.ts";
import type { CriClients } from "./cri-client.ts";
import { unary } from "./cri-client.ts";
import type { DaemonCommand } from "./daemon-command.ts";
import type { Prefix } from "./prefix.ts";
import { childEnvironment } from "./settings.ts";
import { waitFor } from "./wait.ts";

export interface DaemonStart {
  /** Where to die: `name=kill`, comma separated. Ours only. */
  readonly failpoints?: string;
  /** Default 30 s. */
  readonly readyTimeoutMs?: number;
}

/** The daemon process of a runtime under test. Its output goes to `daemon.log` in the prefix. */
export class Daemon {
  readonly process: ChildProcess;
  readonly #logPath: string;

  private constructor(process: ChildProcess, logPath: string) {
    this.process = process;
    this.#logPath = logPath;
  }

  /** Starts the daemon and waits until it answers Version; a daemon that exits before that is an error with the tail of its log. */
  static async start(command: DaemonCommand, prefix: Prefix, clients: CriClients, options: DaemonStart = {}): Promise<Daemon> {
    const logPath = join(prefix.dir, "daemon.log");
    await using log = await open(logPath, "a");
    const failpoints = options.failpoints === undefined ? {} : { AURAE_CRI_FAILPOINTS: options.failpoints };
    const child = spawn(command.program, command.args, { stdio: ["ignore", log.fd, log.fd], env: childEnvironment(failpoints) });
    child.on("error", () => {});
    const daemon = new Daemon(child, logPath);
    try {
      await waitFor(
        "the daemon to answer Version",
        async () => {
          if (!daemon.isRunning) return true;
          await unary(clients.runtime, clients.runtime.version, { version: "v1" }, { timeoutMs: 1000 });
          return true;
        },
        { timeoutMs: options.readyTimeoutMs ?? 30_000 },
      );
      if (!daemon.isRunning) throw new Error(`${command.program} ended before it served`);
    } catch (error) {
      await daemon.kill9();
      throw new Error(`the daemon did not start; the end of its log:\n${await daemon.logTail()}`, { cause: error });
    }
    return daemon;
  }

  get isRunning(): boolean {
    return this.process.pid !== undefined && this.process.exitCode === null && this.process.signalCode === null;
  }

  async kill9(): Promise<void> {
    if (!this.isRunning) return;
    this.process.kill("SIGKILL");
    await exited(this.process);
  }

  /** SIGTERM: a daemon that drains in `graceMs` exits by itself. */
  async stop(): Promise<void> {
    await terminate(this.process);
  }

  async logTail(lines = 30): Promise<string> {
    return (await readFile(this.#logPath, "utf8")).split("\n").slice(-lines).join("\n");
  }
}
