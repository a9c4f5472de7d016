import { open, readFile } from "node:fs/promises";
import { release } from "node:os";

/** Whether the kernel mounts a type of file system: now, as soon as it has loaded a module, or not at all. */
export type FileSystemSupport = "present" | "loadable" | "missing";

export async function fileSystemSupport(type: string): Promise<FileSystemSupport> {
  const present = (await readOrEmpty("/proc/filesystems")).split("\n").some((line) => line.split("\t").at(-1) === type);
  if (present) return "present";
  const modules = await Promise.all(["modules.dep", "modules.builtin"].map((name) => readOrEmpty(`/lib/modules/${release()}/${name}`)));
  return modules.some((text) => new RegExp(`/${type}\\.ko\\b`).test(text)) ? "loadable" : "missing";
}

/** Why a device or file cannot be opened for reading and writing, as errno's name; undefined: it can. */
export async function openFailure(path: string): Promise<string | undefined> {
  try {
    await using _ = await open(path, "r+");
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
}

/** The processor's extension for virtual machines; undefined: none, or the firmware or a hypervisor hides it. */
export async function virtualizationExtension(): Promise<"vmx" | "svm" | undefined> {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(await readOrEmpty("/proc/cpuinfo"))?.[1]?.split(" "));
  if (flags.has("vmx")) return "vmx";
  return flags.has("svm") ? "svm" : undefined;
}

async function readOrEmpty(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}
