import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { RuntimeServiceService } from "../../api/gen/cri/v1/api.ts";

/** A person waits: a daemon that takes longer is not well. */
const TIMEOUT_MS = 5_000;

const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** What became of one call. `down`: nobody serves the socket, or nobody answers in time. */
export type Answer<Response> =
  | { readonly kind: "answer"; readonly response: Response }
  | { readonly kind: "not-found" }
  | { readonly kind: "down"; readonly message: string }
  | { readonly kind: "refused"; readonly message: string };

interface Method<Request, Response> {
  readonly path: string;
  readonly requestSerialize: (value: Request) => Buffer;
  readonly responseDeserialize: (value: Buffer) => Response;
}

/** The few calls of the CRI that commands make. Connecting is lazy. */
export class CriClient implements Disposable {
  readonly #client: Client;
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.enable_http_proxy": 0,
    });
  }

  version() {
    return this.#call(RuntimeServiceService.version, { version: "v1" });
  }

  pods() {
    return this.#call(RuntimeServiceService.listPodSandbox, { filter: undefined });
  }

  podStatus(podSandboxId: string) {
    return this.#call(RuntimeServiceService.podSandboxStatus, { podSandboxId, verbose: true });
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #call<Request, Response>(method: Method<Request, Response>, request: Request): Promise<Answer<Response>> {
    const { promise, resolve } = Promise.withResolvers<Answer<Response>>();
    const { path, requestSerialize, responseDeserialize } = method;
    const options = { deadline: Date.now() + TIMEOUT_MS };
    this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, new Metadata(), options, (error, response) => {
      if (error !== null) resolve(this.#failureOf(error));
      else if (response === undefined) resolve({ kind: "refused", message: `${path}: empty answer` });
      else resolve({ kind: "answer", response });
    });
    return promise;
  }

  #failureOf({ code, details }: ServiceError): Answer<never> {
    if (code === status.NOT_FOUND) return { kind: "not-found" };
    if (code === status.UNAVAILABLE) return { kind: "down", message: `nothing serves ${this.#socketPath}` };
    if (code === status.DEADLINE_EXCEEDED)
      return { kind: "down", message: `no answer within ${TIMEOUT_MS / 1000} s at ${this.#socketPath}` };
    return { kind: "refused", message: details };
  }
}
