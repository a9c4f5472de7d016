import { once } from "node:events";

import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceError,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";

import {
  PodServiceService,
  type PortForwardInput,
  type PortForwardOutput,
  type StreamInput,
  type StreamOutput,
} from "../../api/gen/aurae/pod/v0/pod.ts";

type ProcessCall = ServerDuplexStream<StreamInput, StreamOutput>;
type ForwardCall = ServerDuplexStream<PortForwardInput, PortForwardOutput>;

/** Ports of the fake pod: one gives back what it gets, one greets and ends, nobody listens on the others. */
export const ECHO_PORT = 7;
export const GREETING_PORT = 13;

/** The streams of the pod contract, for tests of who calls them. What its commands do stands beside each. */
export class FakeAuraed implements AsyncDisposable {
  /** Calls that were given up by the daemon. */
  givenUp = 0;
  /** Calls under way. */
  open = 0;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(socketPath: string): Promise<FakeAuraed> {
    const server = new Server();
    const auraed = new FakeAuraed(server);
    const implementation: UntypedServiceImplementation = {
      exec: (call: ProcessCall) => auraed.#track(call, runCommand(call)),
      attach: (call: ProcessCall) => auraed.#track(call, joinContainer(call)),
      portForward: (call: ForwardCall) => auraed.#track(call, forward(call)),
    };
    server.addService(PodServiceService, implementation);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error)));
    await promise;
    return auraed;
  }

  #track(call: ProcessCall | ForwardCall, ending: Promise<void>): void {
    this.open++;
    call.once("cancelled", () => this.givenUp++);
    call.on("error", () => {});
    void ending.catch((error: unknown) => call.emit("error", error)).finally(() => this.open--);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
  }
}

async function runCommand(call: ProcessCall): Promise<void> {
  const ended = once(call, "cancelled").catch(() => {});
  for await (const { input } of messages<StreamInput>(call)) {
    if (input?.$case === "start") {
      const { command, size } = input.value;
      call.write({ output: { $case: "started", value: {} } });
      // `sizes`: prints the window at the start and each later one.
      if (command[0] === "sizes" && size !== undefined) print(call, `${size.width}x${size.height}\n`);
      // `wait`: until it is given up.
      if (command[0] === "wait") return void (await ended);
      // `exit N`: prints `out` and `err` and ends.
      if (command[0] === "exit") {
        print(call, "out");
        call.write({ output: { $case: "stderr", value: Buffer.from("err") } });
        return exit(call, Number(command[1]));
      }
      if (command[0] === "missing") throw refusal("missing: no such program");
    } else if (input?.$case === "resize") print(call, `${input.value.width}x${input.value.height}\n`);
    // `cat`, and every other.
    else if (input?.$case === "stdin") print(call, input.value);
    else if (input?.$case === "stdinClose") return exit(call, 0);
  }
}

/** A container that gives back what it gets, and ends with its input. */
async function joinContainer(call: ProcessCall): Promise<void> {
  for await (const { input } of messages<StreamInput>(call)) {
    if (input?.$case === "stdin") print(call, input.value);
    else if (input?.$case === "stdinClose") return void call.end();
  }
}

async function forward(call: ForwardCall): Promise<void> {
  for await (const { input } of messages<PortForwardInput>(call)) {
    if (input?.$case === "dial") {
      const { port } = input.value;
      if (port !== ECHO_PORT && port !== GREETING_PORT) throw refusal(`port ${port}: connection refused`);
      call.write({ output: { $case: "connected", value: {} } });
      if (port === GREETING_PORT) {
        call.write({ output: { $case: "data", value: Buffer.from("hello") } });
        call.write({ output: { $case: "halfClose", value: {} } });
      }
    } else if (input?.$case === "data") call.write({ output: { $case: "data", value: input.value } });
    else if (input?.$case === "halfClose") {
      call.write({ output: { $case: "halfClose", value: {} } });
      return void call.end();
    }
  }
}

/** Leaving the loop leaves the call open: there is something to say still. */
function messages<Input>(call: ServerDuplexStream<Input, unknown>): AsyncIterable<Input> {
  return call.iterator({ destroyOnReturn: false }) as AsyncIterable<Input>;
}

function print(call: ProcessCall, text: string | Buffer): void {
  call.write({ output: { $case: "stdout", value: Buffer.from(text) } });
}

function exit(call: ProcessCall, code: number): void {
  call.write({ output: { $case: "exitCode", value: code } });
  call.end();
}

function refusal(details: string): Error & Partial<ServiceError> {
  return Object.assign(new Error(details), { code: status.FAILED_PRECONDITION, details });
}
