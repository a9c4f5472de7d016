import type { ChildProcess, ChildProcessWithoutNullStreams } from "node:child_process";
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { CommandResult } from "./command.ts";
import { runCommand } from "./command.ts";
import type { Prefix } from "./prefix.ts";
import { childEnvironment, peersDir, slowness } from "./settings.ts";

/** The real crictl at its default timeouts: 2 s a call, 4 s for RunPodSandbox. */
export class Crictl {
  readonly #globalArgs: readonly string[];

  private constructor(globalArgs: readonly string[]) {
    this.#globalArgs = globalArgs;
  }

  static async create(prefix: Prefix): Promise<Crictl> {
    const endpoint = `unix://${prefix.socketPath}`;
    const configPath = join(prefix.dir, "crictl.yaml");
    await writeFile(configPath, `runtime-endpoint: ${endpoint}\nimage-endpoint: ${endpoint}\n`);
    // Without the option crictl allows RunPodSandbox twice as much, which a slow host needs as well.
    const timeout = slowness() > 1 ? ["--timeout", `${4 * slowness()}s`] : [];
    return new Crictl(["--config", configPath, "--runtime-endpoint", endpoint, ...timeout]);
  }

  /** Runs a command whatever its outcome. */
  async try(...args: readonly string[]): Promise<CommandResult> {
    return await runCommand(this.#program, [...this.#globalArgs, ...args]);
  }

  /** Runs a command that must succeed; what it printed, trimmed. */
  async run(...args: readonly string[]): Promise<string> {
    const result = await this.try(...args);
    if (result.exitCode !== 0) throw new Error(`crictl ${args.join(" ")}: exit code ${result.exitCode}: ${result.stderr.trim()}`);
    return result.stdout.trim();
  }

  /** Runs a command that prints JSON. The caller states the shape it expects and asserts on it. */
  async json<Shape>(...args: readonly string[]): Promise<Shape> {
    return JSON.parse(await this.run(...args)) as Shape;
  }

  /** Starts a command that lasts, such as `logs -f`. Its stdout is a pipe. */
  start(...args: readonly string[]): ChildProcess {
    return spawn(this.#program, [...this.#globalArgs, ...args], { stdio: ["ignore", "pipe", "inherit"], env: childEnvironment() });
  }

  /** The same with all three streams as pipes. */
  startWithInput(...args: readonly string[]): ChildProcessWithoutNullStreams {
    return spawn(this.#program, [...this.#globalArgs, ...args], { env: childEnvironment() });
  }

  /** Runs a command in a terminal of the given size; what it showed. */
  async inTerminal(size: { readonly columns: number; readonly rows: number }, ...args: readonly string[]): Promise<string> {
    const quoted = [this.#program, ...this.#globalArgs, ...args].map((arg) => `'${arg.replaceAll("'", "'\\''")}'`).join(" ");
    const script = `stty cols ${size.columns} rows ${size.rows}; ${quoted}`;
    const result = await runCommand("script", ["--quiet", "--return", "--command", script, "/dev/null"]);
    if (result.exitCode !== 0) throw new Error(`crictl ${args.join(" ")}: exit code ${result.exitCode}: ${result.stdout}`);
    return result.stdout;
  }

  get #program(): string {
    return join(peersDir(), "bin", "crictl");
  }
}
