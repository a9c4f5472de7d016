import { promisify } from "node:util";

import { Server, ServerCredentials, type ServiceDefinition, type sendUnaryData, type UntypedServiceImplementation } from "@grpc/grpc-js";

import { ImageServiceService, RuntimeServiceService } from "../../api/gen/cri/v1/api.ts";

/** In every answer of the CRI the first field is a string or a message: here an empty one. */
const HOLLOW = Buffer.from([0x0a, 0]);

/** Answers every call with success and nothing in it, and has no streaming list: what a check of answers must find. */
export class HollowRuntime implements Disposable {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(socketPath: string): Promise<HollowRuntime> {
    const server = new Server();
    for (const service of [RuntimeServiceService, ImageServiceService]) {
      const calls = Object.entries(service as ServiceDefinition).filter(([, { responseStream }]) => !responseStream);
      const definition = calls.map(([name, call]) => [name, { ...call, responseSerialize: (answer: Buffer) => answer }]);
      server.addService(Object.fromEntries(definition) as ServiceDefinition, answers(calls.map(([name]) => name)));
    }
    await promisify(server.bindAsync.bind(server))(`unix://${socketPath}`, ServerCredentials.createInsecure());
    return new HollowRuntime(server);
  }

  [Symbol.dispose](): void {
    this.#server.forceShutdown();
  }
}

function answers(names: readonly string[]): UntypedServiceImplementation {
  const answer = (_call: unknown, callback: sendUnaryData<Buffer>) => callback(null, HOLLOW);
  return Object.fromEntries(names.map((name) => [name, answer]));
}
