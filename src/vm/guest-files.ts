import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { messageOf } from "../lib/coded-error.ts";
import { VmError } from "./errors.ts";
import { sumFile } from "./sum-file.ts";

/** What the daemon and the guest's auraed must agree on beyond what protobuf forgives: another number cannot be driven. */
export const CONTRACT_VERSION = 1;

/** What every guest has. `system`: its root file system, with auraed and the kernel's modules. */
export type PartName = "kernel" | "system" | "scratch";

/** A file that a microVM boots, as it was found. */
export interface GuestPart {
  readonly path: string;
  readonly version: string;
  readonly sizeBytes: number;
  /** Behind them is only a hole. */
  readonly dataBytes: number;
  /** Of the file's content; of what is only a hole at its end, nothing. */
  readonly sha256: string;
}

/** Everything that a microVM boots: complete, and what its manifest says. */
export interface GuestFiles {
  readonly directory: string;
  readonly kernelRelease: string;
  readonly auraedVersion: string;
  /** Arguments that the kernel was built to be given: always, and under software emulation on top. */
  readonly kernelArguments: { readonly always: readonly string[]; readonly tcg: readonly string[] };
  readonly parts: Readonly<Record<PartName, GuestPart>>;
  /** Only of a kernel that must load modules before it can read a disk. */
  readonly initrd: GuestPart | undefined;
}

/** One reason why a guest cannot be booted. */
export interface GuestFlaw {
  readonly kind: "missing" | "corrupt" | "version";
  /** Absolute path. */
  readonly file: string;
  readonly problem: string;
  readonly remedy: string;
}

export type GuestCheck =
  | { readonly complete: true; readonly files: GuestFiles }
  | { readonly complete: false; readonly flaws: readonly GuestFlaw[] };

// The manifest is installed with the program, but it is a file: what becomes an argument or a path is held to a shape.
const kernelArgument = z.string().regex(/^[a-z0-9_.-]+(=[A-Za-z0-9_.,:+-]+)?$/);
const kernelArguments = z.array(kernelArgument).max(32);
const bytes = z.number().int().positive().max(Number.MAX_SAFE_INTEGER);
const text = z.string().min(1).max(128);
const part = z.object({
  file: z.string().regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/),
  version: text,
  sizeBytes: bytes,
  dataBytes: bytes,
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});
const manifestSchema = z.object({
  formatVersion: z.literal(2),
  architecture: text,
  kernelRelease: text,
  auraedVersion: text,
  contractVersion: z.number().int(),
  kernelArguments: z.object({ always: kernelArguments, tcg: kernelArguments }),
  parts: z.object({ kernel: part, system: part, scratch: part, initrd: part.optional() }),
});
type Manifest = z.infer<typeof manifestSchema>;
type ManifestPart = z.infer<typeof part>;

const MAX_MANIFEST_BYTES = 64 << 10;
const REMEDY = "run `make guest` in a checkout, or install the aurae-cri package anew";

/** What QEMU emulates here, as `uname -m` calls it. */
function hostArchitecture(): string {
  return process.arch === "arm64" ? "aarch64" : "x86_64";
}

/**
 * Reads `manifest.json` of a directory and checks every part against it, byte by byte. Never rejects for what is wrong with the files:
 * all flaws are in the answer. It takes some 0.1 s for 110 MB.
 */
export async function checkGuestFiles(directory: string, options: { readonly signal: AbortSignal }): Promise<GuestCheck> {
  const manifest = await readManifest(directory);
  if ("kind" in manifest) return { complete: false, flaws: [manifest] };
  const flaws = versionFlaws(directory, manifest);
  const listed = Object.values(manifest.parts).filter((listedPart) => listedPart !== undefined);
  const found = await Promise.all(listed.map((listedPart) => checkPart(directory, listedPart, options.signal)));
  flaws.push(...found.filter((flaw) => flaw !== undefined));
  if (flaws.length > 0) return { complete: false, flaws };
  const { kernelRelease, auraedVersion } = manifest;
  const partOf = ({ file, version, sizeBytes, dataBytes, sha256 }: ManifestPart): GuestPart => ({
    path: join(directory, file),
    version,
    sizeBytes,
    dataBytes,
    sha256,
  });
  const { kernel, system, scratch, initrd } = manifest.parts;
  const parts = { kernel: partOf(kernel), system: partOf(system), scratch: partOf(scratch) };
  return {
    complete: true,
    files: {
      directory,
      kernelRelease,
      auraedVersion,
      kernelArguments: manifest.kernelArguments,
      parts,
      initrd: initrd && partOf(initrd),
    },
  };
}

/** As `checkGuestFiles`; throws ERR_GUEST_FILES with all flaws. */
export async function loadGuestFiles(directory: string, options: { readonly signal: AbortSignal }): Promise<GuestFiles> {
  const check = await checkGuestFiles(directory, options);
  if (check.complete) return check.files;
  const { flaws } = check;
  const said = flaws.map(({ file, problem }) => `${file}: ${problem}`).join("; ");
  throw new VmError({ code: "ERR_GUEST_FILES", directory, flaws }, `the microVM's files are not complete: ${said}: ${REMEDY}`);
}

async function readManifest(directory: string): Promise<Manifest | GuestFlaw> {
  const file = join(directory, "manifest.json");
  const flaw = (kind: GuestFlaw["kind"], problem: string): GuestFlaw => ({ kind, file, problem, remedy: REMEDY });
  try {
    const { size } = await stat(file);
    if (size > MAX_MANIFEST_BYTES) return flaw("corrupt", `${size} bytes are no manifest`);
    const parsed = manifestSchema.safeParse(JSON.parse(await readFile(file, "utf8")));
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    const path = issue?.path.join(".") ?? "";
    return flaw(path === "formatVersion" ? "version" : "corrupt", `${path}: ${issue?.message}`);
  } catch (error) {
    if (isNotFound(error)) return flaw("missing", "not found");
    return flaw("corrupt", messageOf(error));
  }
}

function versionFlaws(directory: string, manifest: Manifest): GuestFlaw[] {
  const flaws: GuestFlaw[] = [];
  const refuse = (file: string, problem: string): void => {
    flaws.push({ kind: "version", file: join(directory, file), problem, remedy: REMEDY });
  };
  const { architecture, contractVersion, auraedVersion, parts } = manifest;
  if (architecture !== hostArchitecture()) refuse("manifest.json", `for ${architecture}, and this node is ${hostArchitecture()}`);
  if (contractVersion !== CONTRACT_VERSION) {
    refuse("manifest.json", `speaks contract version ${contractVersion}, and this daemon ${CONTRACT_VERSION}`);
  }
  for (const holder of [parts.system, ...(parts.initrd === undefined ? [] : [parts.initrd])]) {
    const wanted = `${auraedVersion} ${parts.kernel.version}`;
    if (holder.version !== wanted) refuse(holder.file, `is of auraed and kernel ${holder.version}, and the manifest says ${wanted}`);
  }
  return flaws;
}

async function checkPart(directory: string, wanted: ManifestPart, signal: AbortSignal): Promise<GuestFlaw | undefined> {
  const file = join(directory, wanted.file);
  const flaw = (kind: GuestFlaw["kind"], problem: string): GuestFlaw => ({ kind, file, problem, remedy: REMEDY });
  try {
    const { size } = await stat(file);
    if (size !== wanted.sizeBytes) return flaw("corrupt", `has ${size} bytes, and the manifest says ${wanted.sizeBytes}`);
    if (wanted.dataBytes > size) return flaw("corrupt", `is smaller than the ${wanted.dataBytes} bytes of its checksum`);
    const sha256 = await sumFile(file, wanted.dataBytes, { signal });
    return sha256 === wanted.sha256 ? undefined : flaw("corrupt", `has SHA-256 ${sha256}, and the manifest says ${wanted.sha256}`);
  } catch (error) {
    signal.throwIfAborted();
    if (isNotFound(error)) return flaw("missing", "not found");
    return flaw("corrupt", messageOf(error));
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}
