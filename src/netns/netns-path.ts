import { statfs } from "node:fs/promises";

/** `NSFS_MAGIC` of linux/magic.h: what a pinned namespace is bind-mounted from. */
const NSFS_MAGIC = 0x6e736673;

/** False when the file is missing, and when its bind mount is gone and only the empty file under it is left. */
export async function isPinnedNamespace(path: string): Promise<boolean> {
  return await statfs(path).then(
    ({ type }) => type === NSFS_MAGIC,
    () => false,
  );
}
