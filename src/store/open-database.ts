import { existsSync, renameSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { messageOf } from "../lib/coded-error.ts";
import { StoreError } from "./errors.ts";
import { applicationId, isBlank, migrate, readPragma, schemaVersion } from "./schema.ts";

/** How the database was found. `quarantined` is where the damaged one lies now; a new, empty one stands in its place. */
export type StoreCondition = "opened" | "created" | { readonly quarantined: string; readonly reason: string };

/** The database's companions: they hold committed pages, so they move with it. */
const suffixes = ["", "-wal", "-shm"] as const;

/** Results of SQLite that mean a damaged file: CORRUPT, NOTADB. All else (permissions, disk) is not cured by a new file. */
const damageCodes: ReadonlySet<number> = new Set([11, 26]);

/** Blocks: for the worker. Throws `ERR_STORE_OPEN`, or `ERR_STORE_NEWER`, before which nothing is changed. */
export function openDatabase(path: string): { readonly db: DatabaseSync; readonly condition: StoreCondition } {
  try {
    const damage = findDamage(path);
    if (damage === undefined) {
      const { db, blank } = openSound(path);
      return { db, condition: blank ? "created" : "opened" };
    }
    const quarantined = moveAside(path);
    return { db: openSound(path).db, condition: { quarantined, reason: damage } };
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw new StoreError({ code: "ERR_STORE_OPEN", path }, `cannot open ${path}: ${messageOf(error)}`, { cause: error });
  }
}

function openSound(path: string): { readonly db: DatabaseSync; readonly blank: boolean } {
  const db = new DatabaseSync(path, { timeout: 1_000 });
  try {
    db.exec("PRAGMA journal_mode = WAL");
    db.exec("PRAGMA synchronous = FULL");
    const blank = isBlank(db);
    migrate(db);
    return { db, blank };
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Says what is wrong with the file, or nothing when it is sound or absent. */
function findDamage(path: string): string | undefined {
  if (!existsSync(path)) return existsSync(`${path}-wal`) ? "the database file is missing, its journal is there" : undefined;
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path, { timeout: 1_000 });
    const verdict = String(db.prepare("PRAGMA quick_check(1)").get()?.["quick_check"]);
    if (verdict !== "ok") return verdict;
    if (isBlank(db)) return undefined;
    if (readPragma(db, "application_id") !== applicationId) return "not a database of aurae-cri";
    refuseNewer(db, path);
    return undefined;
  } catch (error) {
    if (damageCodes.has(resultCode(error))) return messageOf(error);
    throw error;
  } finally {
    db?.close();
  }
}

function refuseNewer(db: DatabaseSync, path: string): void {
  const found = readPragma(db, "user_version");
  if (found <= schemaVersion) return;
  throw new StoreError(
    { code: "ERR_STORE_NEWER", path, found, supported: schemaVersion },
    `${path} has schema version ${found}, this release knows ${schemaVersion}: run the newer aurae-cri again, or move the file away to rebuild from the pods' own records`,
  );
}

/** SQLite's primary result code; the extended ones carry it in the low byte. */
function resultCode(error: unknown): number {
  return error instanceof Error && "errcode" in error ? Number(error.errcode) & 0xff : 0;
}

function moveAside(path: string): string {
  const stamp = new Date().toISOString().replaceAll(/[:.]/g, "");
  let target = `${path}.damaged-${stamp}`;
  for (let n = 1; suffixes.some((suffix) => existsSync(target + suffix)); n++) target = `${path}.damaged-${stamp}-${n}`;
  for (const suffix of suffixes) if (existsSync(path + suffix)) renameSync(path + suffix, target + suffix);
  return target;
}
