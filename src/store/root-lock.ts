import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { messageOf } from "../lib/coded-error.ts";
import { StoreError } from "./errors.ts";

/** SQLite's BUSY: someone else holds the lock. */
const SQLITE_BUSY = 5;

/**
 * Claims a directory for this process and makes it when absent; disposing gives it up. Throws `ERR_ROOT_LOCKED` when another daemon
 * works in it.
 *
 * Node has no flock. An exclusive transaction of SQLite that is never ended is a lock of the kernel on a file: it falls with the
 * process, whatever kills it. Opening the file otherwise in this process would drop it, so nothing else does.
 */
export function lockDirectory(dir: string): Disposable {
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  const path = join(dir, "daemon.lock");
  const pidPath = join(dir, "daemon.pid");
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path, { timeout: 0 });
    db.exec("BEGIN EXCLUSIVE");
    writeFileSync(pidPath, `${process.pid}\n`, { mode: 0o644 });
  } catch (error) {
    db?.close();
    throw lockError(error, path, pidPath);
  }
  const held = db;
  return { [Symbol.dispose]: () => held.close() };
}

function lockError(error: unknown, path: string, pidPath: string): StoreError {
  const busy = error instanceof Error && "errcode" in error && (Number(error.errcode) & 0xff) === SQLITE_BUSY;
  if (!busy) return new StoreError({ code: "ERR_STORE_OPEN", path }, `cannot lock ${path}: ${messageOf(error)}`, { cause: error });
  const pid = readPid(pidPath);
  const holder = pid === 0 ? "another aurae-cri" : `another aurae-cri (pid ${pid})`;
  return new StoreError(
    { code: "ERR_ROOT_LOCKED", path, pid },
    `${path} is held by ${holder}: stop it, or give this one directories of its own with --root and --state`,
  );
}

function readPid(pidPath: string): number {
  try {
    const pid = Number(readFileSync(pidPath, "utf8").trim());
    return Number.isSafeInteger(pid) && pid > 0 ? pid : 0;
  } catch {
    return 0;
  }
}
