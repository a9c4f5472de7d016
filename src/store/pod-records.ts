import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../lib/atomic-write.ts";
import { messageOf } from "../lib/coded-error.ts";
import { failpoint } from "../lib/failpoint.ts";
import type { RecordWrite, Store } from "../runtime/ports.ts";

/** The file in a pod's directory from which the database can be rebuilt. */
const fileName = "record.json";
const fileVersion = 1;

/** A record names itself, so that it can be filed again without knowing what is in it. */
export interface SelfNamedRecord {
  readonly id: string;
}

/** A pod's record with those of its containers, as the database holds them. */
export interface PodRecords {
  readonly pod: SelfNamedRecord;
  readonly containers: readonly SelfNamedRecord[];
}

/** A pod directory without a readable record: for a person to look at, never swept. */
export interface BadPodRecord {
  readonly path: string;
  readonly reason: string;
}

interface Job {
  /** Undefined: remove the file. */
  readonly records: PodRecords | undefined;
  readonly done: PromiseWithResolvers<void>;
}

/** Per directory with a write under way: what is to be written next. */
const waiting = new Map<string, Job | undefined>();

/**
 * Replaces the record in the pod directory `dir`, which exists; durable once resolved. Calls for one directory are written in the order
 * in which they were made; those that come while a write is under way share the next one, which holds the last of them.
 */
export function writePodRecord(dir: string, records: PodRecords): Promise<void> {
  return enqueue(dir, records);
}

/** Removes it. Absent is success. */
export function removePodRecord(dir: string): Promise<void> {
  return enqueue(dir, undefined);
}

function enqueue(dir: string, records: PodRecords | undefined): Promise<void> {
  if (waiting.has(dir)) {
    const job: Job = { records, done: waiting.get(dir)?.done ?? Promise.withResolvers<void>() };
    waiting.set(dir, job);
    return job.done.promise;
  }
  const job: Job = { records, done: Promise.withResolvers<void>() };
  void work(dir, job);
  return job.done.promise;
}

/** Settles every job's promise; never rejects itself. */
async function work(dir: string, first: Job): Promise<void> {
  for (let job: Job | undefined = first; job !== undefined; job = waiting.get(dir)) {
    waiting.set(dir, undefined);
    await perform(dir, job.records).then(job.done.resolve, job.done.reject);
  }
  waiting.delete(dir);
}

async function perform(dir: string, records: PodRecords | undefined): Promise<void> {
  const path = join(dir, fileName);
  failpoint("store.pod_record.before");
  if (records === undefined) await rm(path, { force: true });
  else await writeFileAtomic(path, JSON.stringify({ version: fileVersion, ...records }));
  failpoint("store.pod_record.after");
}

/** Reads the record of every pod directory below `podsDir`. A missing `podsDir` holds none. */
export async function readPodRecords(
  podsDir: string,
): Promise<{ readonly records: readonly PodRecords[]; readonly bad: readonly BadPodRecord[] }> {
  const records: PodRecords[] = [];
  const bad: BadPodRecord[] = [];
  for (const podId of await directoriesOf(podsDir)) {
    const path = join(podsDir, podId, fileName);
    try {
      records.push(parseRecords(await readFile(path, "utf8"), podId));
    } catch (error) {
      bad.push({ path, reason: messageOf(error) });
    }
  }
  return { records, bad };
}

/** Fills an empty store from the pods' own records, in one transaction. */
export async function rebuild(store: Store, podsDir: string): Promise<{ readonly pods: number; readonly bad: readonly BadPodRecord[] }> {
  const { records, bad } = await readPodRecords(podsDir);
  const writes = records.flatMap(({ pod, containers }): RecordWrite[] => [
    { op: "put", kind: "pod", id: pod.id, value: pod },
    ...containers.map((container): RecordWrite => ({ op: "put", kind: "container", id: container.id, value: container })),
  ]);
  await store.write(writes);
  return { pods: records.length, bad };
}

async function directoriesOf(podsDir: string): Promise<string[]> {
  try {
    const entries = await readdir(podsDir, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

function parseRecords(text: string, podId: string): PodRecords {
  const document: unknown = JSON.parse(text);
  if (!isObject(document) || !("version" in document)) throw new Error("not a pod record: it has no version");
  if (document.version !== fileVersion) throw new Error(`version ${String(document.version)}, this release knows ${fileVersion}`);
  if (!("pod" in document) || !isSelfNamed(document.pod)) throw new Error("pod: not a record with an id");
  if (document.pod.id !== podId) throw new Error(`it is the record of pod ${document.pod.id}`);
  if (!("containers" in document) || !Array.isArray(document.containers) || !document.containers.every(isSelfNamed)) {
    throw new Error("containers: not a list of records with an id");
  }
  return { pod: document.pod, containers: document.containers };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isSelfNamed(value: unknown): value is SelfNamedRecord {
  return isObject(value) && "id" in value && typeof value.id === "string" && value.id !== "";
}
