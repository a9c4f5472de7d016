import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import descriptor from "google-protobuf/google/protobuf/descriptor_pb.js";

const SOURCE = "pkg/apis/runtime/v1/api.pb.go";

/**
 * The descriptor of upstream's CRI v1, from the generated Go source of the module that tools/peers/cri-api pins. The source holds it as
 * serialized bytes in one string constant, which is read here; no code of the module runs.
 */
export function upstreamCriDescriptor(): descriptor.FileDescriptorProto {
  const source = readFileSync(join(moduleDirectory(), SOURCE), "utf8");
  return descriptor.FileDescriptorProto.deserializeBinary(rawDescriptor(source));
}

function moduleDirectory(): string {
  const peer = join(import.meta.dirname, "peers", "cri-api");
  const answer: unknown = JSON.parse(execFileSync("go", ["mod", "download", "-json", "k8s.io/cri-api"], { cwd: peer, encoding: "utf8" }));
  if (typeof answer === "object" && answer !== null && "Dir" in answer && typeof answer.Dir === "string") return answer.Dir;
  throw new Error(`go mod download gave no directory for k8s.io/cri-api: ${JSON.stringify(answer)}`);
}

/** The bytes of `const …_rawDesc = "" + "…" + …`: one Go string literal per line. */
export function rawDescriptor(source: string): Buffer {
  const [, after] = source.split(/^const \w+_rawDesc = "" \+\n/m);
  if (after === undefined) throw new Error(`${SOURCE} declares no raw descriptor as a string constant`);
  const literals: Buffer[] = [];
  for (const line of after.split("\n")) {
    const match = /^\t"(.*)"( \+)?$/.exec(line);
    if (match?.[1] === undefined) throw new Error(`not a line of a string constant: ${line}`);
    literals.push(unquote(match[1]));
    if (match[2] === undefined) break;
  }
  return Buffer.concat(literals);
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  '"': '"',
};

/** What stands between the quotes of a Go string literal. Source: the Go specification, string literals. */
function unquote(text: string): Buffer {
  const parts = text.split(/\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[0-7]{3}|.)/);
  return Buffer.concat(parts.map((part, index) => (index % 2 === 0 ? Buffer.from(part) : escaped(part))));
}

function escaped(escape: string): Buffer {
  const digits = escape.slice(1);
  if (/^[0-7]{3}$/.test(escape)) return Buffer.from([Number.parseInt(escape, 8)]);
  if (escape.startsWith("x")) return Buffer.from([Number.parseInt(digits, 16)]);
  if (/^[uU]/.test(escape)) return Buffer.from(String.fromCodePoint(Number.parseInt(digits, 16)));
  const character = ESCAPES[escape];
  if (character === undefined) throw new Error(`unknown escape \\${escape} in a Go string literal`);
  return Buffer.from(character, "latin1");
}
