import { readFile } from "node:fs/promises";
import { z } from "zod";

/**
 * A CDI specification: devices of one kind, and what giving one to a container changes in the container. A key that is not known is an
 * error: a container that lacks a part of its device is worse off than one that is refused.
 *
 * Source: Container Device Interface 1.0, SPEC.md.
 */
const absolutePath = z.string().regex(/^\/[^\0]*$/, "must be an absolute path");
const id = z
  .int()
  .min(0)
  .max(2 ** 32 - 1);

const deviceNode = z.strictObject({
  path: absolutePath,
  hostPath: absolutePath.optional(),
  type: z.enum(["b", "c", "u", "p"]).optional(),
  major: z.int().min(0).optional(),
  minor: z.int().min(0).optional(),
  fileMode: z.int().min(0).max(0o7777).optional(),
  permissions: z
    .string()
    .regex(/^[rwm]*$/, "must be made of r, w and m")
    .optional(),
  uid: id.optional(),
  gid: id.optional(),
});

const mount = z.strictObject({
  hostPath: z.string().min(1),
  containerPath: absolutePath,
  type: z.string().optional(),
  options: z.array(z.string().regex(/^[^,\0]+$/, "must be one option")).optional(),
});

const hook = z.strictObject({
  hookName: z.enum(["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]),
  path: absolutePath,
  args: z.array(z.string()).optional(),
  env: z.array(z.string()).optional(),
  timeout: z.int().min(1).optional(),
});

const intelRdt = z.strictObject({
  closID: z.string().optional(),
  l3CacheSchema: z.string().optional(),
  memBwSchema: z.string().optional(),
  enableCMT: z.boolean().optional(),
  enableMBM: z.boolean().optional(),
  schemata: z.array(z.string()).optional(),
  enableMonitoring: z.boolean().optional(),
});

const containerEdits = z.strictObject({
  env: z.array(z.string().regex(/^[^=\0]+=[^\0]*$/, "must be NAME=value")).optional(),
  deviceNodes: z.array(deviceNode).optional(),
  mounts: z.array(mount).optional(),
  hooks: z.array(hook).optional(),
  additionalGids: z.array(id).optional(),
  intelRdt: intelRdt.optional(),
});

const annotations = z.record(z.string(), z.string()).optional();

const device = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9]([\w.:-]*[A-Za-z0-9])?$/, "must be letters, digits, '_', '-', '.' and ':'"),
  annotations,
  containerEdits: containerEdits.refine((edits) => Object.keys(edits).length > 0, "must not be empty"),
});

const specification = z.strictObject({
  cdiVersion: z.string().regex(/^v?[01]\.\d+\.\d+$/, "must be a version of CDI before 2.0"),
  kind: z.string().regex(/^[A-Za-z]([\w.-]*[A-Za-z0-9])?\/[A-Za-z]([\w-]*[A-Za-z0-9])?$/, "must be VENDOR/CLASS"),
  annotations,
  devices: z.array(device).min(1),
  /** For every device of the file. */
  containerEdits: containerEdits.optional(),
});

export type ContainerEdits = z.infer<typeof containerEdits>;
export type Specification = z.infer<typeof specification>;

/** Reads a specification. Throws an `Error` that says what is wrong with it, without the file's name. */
export async function readSpecification(path: string): Promise<Specification> {
  const text = await readFile(path, "utf8");
  const parsed = specification.safeParse(path.endsWith(".json") ? JSON.parse(text) : await parseYaml(text));
  if (!parsed.success)
    throw new Error(parsed.error.issues.map(({ path: at, message }) => `${at.join(".") || "it"}: ${message}`).join("; "));
  const names = parsed.data.devices.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`devices: '${twice}' is there twice`);
  return parsed.data;
}

/** As version 1.1 has it, in which `0660` is a mode: that is how those who write these files read them. Loaded only where there is one. */
async function parseYaml(text: string): Promise<unknown> {
  const { parse } = await import("yaml");
  return parse(text, { version: "1.1", prettyErrors: true });
}
