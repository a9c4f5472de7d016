import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { open } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { exited } from "./command.ts";
import { childEnvironment, peersDir } from "./settings.ts";

/**
 * `e2e/cri-client` before a runtime's socket: every call goes through the kubelet's own client library. What the library refuses of an answer
 * is the error of the call, in the library's words.
 */
export class GoClient implements AsyncDisposable {
  /** Where it serves as soon as the runtime does. */
  readonly socketPath: string;
  readonly #child: ChildProcess;

  private constructor(socketPath: string, child: ChildProcess) {
    this.socketPath = socketPath;
    this.#child = child;
  }

  /** The runtime need not be there yet. */
  static async start(endpoint: string): Promise<GoClient> {
    const dir = dirname(endpoint);
    const socket = "go-client.sock";
    await using log = await open(join(dir, "go-client.log"), "a");
    // By names alone: a command line with the prefix's path is one of the runtime's, which must be gone at the end.
    const child = spawn(join(peersDir(), "bin", "cri-client"), [basename(endpoint), socket], {
      cwd: dir,
      env: childEnvironment(),
      stdio: ["pipe", log.fd, log.fd],
    });
    return new GoClient(join(dir, socket), child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    await exited(this.#child);
  }
}
