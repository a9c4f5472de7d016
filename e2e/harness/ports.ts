import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";
import { createServer } from "node:net";

/** A TCP port of the loopback that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** A subnet and a bridge name that no other run on this machine uses, until disposed. */
export interface NetworkSlot extends Disposable {
  /** `10.199.N` */
  readonly prefix: string;
  readonly bridge: string;
}

/** Takes a free slot. An abstract unix socket is the lock: the kernel drops it with the process. */
export async function takeNetworkSlot(): Promise<NetworkSlot> {
  for (let index = 1; index < 250; index++) {
    const lock = await listenAbstract(`\0aurae-cri-e2e-network-${index}`);
    if (lock !== undefined) return { prefix: `10.199.${index}`, bridge: `aurae-e2e${index}`, [Symbol.dispose]: () => void lock.close() };
  }
  throw new Error("no free network slot: 250 test runs at once?");
}

/** The right to do what only one test run on this machine can do at a time, until disposed; undefined while another has it. */
export async function takeMachineLock(name: string): Promise<Disposable | undefined> {
  const lock = await listenAbstract(`\0aurae-cri-e2e-${name}`);
  return lock && { [Symbol.dispose]: () => void lock.close() };
}

async function listenAbstract(name: string): Promise<Server | undefined> {
  const { promise, resolve } = Promise.withResolvers<Server | undefined>();
  const server = createServer();
  server.once("error", () => resolve(undefined));
  server.listen(name, () => resolve(server));
  return await promise;
}
