/**
 * For tests: writes transactions into the store at argv[2] until killed, several at a time, and prints `ack N` once number N is durable.
 * Transaction N puts records `N-0`, `N-1` and `N-2` and deletes those of N - 10.
 */
import { silentLog } from "../lib/log.ts";
import type { RecordWrite } from "../runtime/ports.ts";
import { openStore } from "./store.ts";

const members = [0, 1, 2] as const;

export function transaction(number: number): RecordWrite[] {
  return members.flatMap((member): RecordWrite[] => [
    { op: "put", kind: "pod", id: `${number}-${member}`, value: { number, filler: "x".repeat((number * 37) % 5_000) } },
    { op: "delete", kind: "pod", id: `${number - 10}-${member}` },
  ]);
}

async function main(path: string, first: number, failpoints: string): Promise<void> {
  const { store } = await openStore({ path, log: silentLog, failpoints });
  let next = first;
  async function writer(): Promise<never> {
    for (;;) {
      const number = next++;
      await store.write(transaction(number));
      process.stdout.write(`ack ${number}\n`);
    }
  }
  await Promise.all([writer(), writer(), writer(), writer()]);
}

if (import.meta.main) await main(process.argv[2] ?? "", Number(process.argv[3]), process.argv[4] ?? "");
