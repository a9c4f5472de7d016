import { readFile } from "node:fs/promises";
import type { ContainerStatus, LinuxContainerResources } from "../../api/gen/cri/v1/api.ts";
import { ContainerState } from "../../api/gen/cri/v1/api.ts";
import type { CriClients } from "./cri-client.ts";
import { unary } from "./cri-client.ts";
import { waitFor } from "./wait.ts";

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** One line of a CRI log file. */
export interface LogLine {
  readonly time: string;
  readonly stream: string;
  /** `F` ends a line, `P` is a part of one. */
  readonly tag: string;
  readonly text: string;
}

/** What a container needs of its node. */
interface ContainerHome {
  readonly clients: CriClients;
  noteFailure(error: unknown): void;
}

/** A container that is removed when disposed. Its pod would do that as well. */
export class Container implements AsyncDisposable {
  readonly id: string;
  readonly logPath: string;
  readonly #node: ContainerHome;

  constructor(parts: { readonly node: ContainerHome; readonly id: string; readonly logPath: string }) {
    this.id = parts.id;
    this.logPath = parts.logPath;
    this.#node = parts.node;
  }

  async start(): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.startContainer, { containerId: this.id });
  }

  async stop(graceSec: number): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.stopContainer, { containerId: this.id, timeout: BigInt(graceSec) });
  }

  async remove(): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.removeContainer, { containerId: this.id });
  }

  async status(): Promise<ContainerStatus> {
    const { runtime } = this.#node.clients;
    const { status } = await unary(runtime, runtime.containerStatus, { containerId: this.id, verbose: false });
    if (status === undefined) throw new Error(`ContainerStatus of ${this.id} holds no status`);
    return status;
  }

  async waitExited(timeoutMs = 10_000): Promise<ContainerStatus> {
    return await waitFor(
      `the end of container ${this.id}`,
      async () => {
        const status = await this.status();
        return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
      },
      { timeoutMs },
    );
  }

  /** ExecSync. `timeoutSec` 0 is none. */
  async exec(command: readonly string[], timeoutSec = 0): Promise<ExecResult> {
    const { runtime } = this.#node.clients;
    const response = await unary(runtime, runtime.execSync, { containerId: this.id, cmd: [...command], timeout: BigInt(timeoutSec) });
    return {
      exitCode: response.exitCode,
      stdout: Buffer.from(response.stdout).toString(),
      stderr: Buffer.from(response.stderr).toString(),
    };
  }

  /** What `/bin/sh -c SCRIPT` prints inside; it must succeed. */
  async shell(script: string): Promise<string> {
    const result = await this.exec(["/bin/sh", "-c", script]);
    if (result.exitCode !== 0)
      throw new Error(`'${script}' in ${this.id}: exit code ${result.exitCode}: ${result.stderr || result.stdout}`);
    return result.stdout.trimEnd();
  }

  async update(linux: LinuxContainerResources): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.updateContainerResources, { containerId: this.id, linux, windows: undefined, annotations: {} });
  }

  async reopenLog(): Promise<void> {
    const { runtime } = this.#node.clients;
    await unary(runtime, runtime.reopenContainerLog, { containerId: this.id });
  }

  async logLines(): Promise<LogLine[]> {
    return parseLog(await readFile(this.logPath, "utf8"));
  }

  /** The text of one stream as the container wrote it. */
  async logText(stream: "stdout" | "stderr"): Promise<string> {
    return joinLines((await this.logLines()).filter((line) => line.stream === stream));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.remove();
    } catch (error) {
      this.#node.noteFailure(error);
    }
  }
}

/** Splits a CRI log; a line that is not `TIME STREAM TAG TEXT` is an error. */
export function parseLog(content: string): LogLine[] {
  return content.split("\n").slice(0, -1).map(parseLine);
}

/** The bytes that the lines of one stream stand for. */
export function joinLines(lines: readonly LogLine[]): string {
  return lines.map((line) => (line.tag === "F" ? `${line.text}\n` : line.text)).join("");
}

function parseLine(line: string): LogLine {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([PF]) (.*)$/s.exec(line);
  const [, time, stream, tag, text] = match ?? [];
  if (time === undefined || stream === undefined || tag === undefined || text === undefined)
    throw new Error(`not a CRI log line: '${line.slice(0, 200)}'`);
  return { time, stream, tag, text };
}
