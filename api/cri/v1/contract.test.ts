import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, describe, it } from "node:test";

import descriptor from "google-protobuf/google/protobuf/descriptor_pb.js";

import { rawDescriptor, upstreamCriDescriptor } from "../../../tools/cri-descriptor.ts";
import { ImageServiceService, RuntimeServiceService } from "../../gen/cri/v1/api.ts";

type FileProto = descriptor.FileDescriptorProto;

let ours: FileProto;
let upstream: FileProto;

before(() => {
  ours = compile("cri/v1/api.proto");
  upstream = upstreamCriDescriptor();
});

describe("the CRI contract", () => {
  it("is upstream's, field by field", () => {
    assert.deepEqual(differences(ours, upstream), []);
  });

  it("is whole", () => {
    const methods = [...factsOf(ours).keys()].filter((key) => key.startsWith("method "));
    assert.equal(methods.length, 43);
    assert.equal(ours.getMessageTypeList().length, 175);
  });

  it("is what the generated services serve", () => {
    const generated = [RuntimeServiceService, ImageServiceService].flatMap((service) => Object.values(service));
    const served = new Map(generated.map(({ path, requestStream, responseStream }) => [path, `${requestStream} ${responseStream}`]));
    const declared = ours.getServiceList().flatMap((service) =>
      service.getMethodList().map((rpc): [string, string] => {
        const path = `/runtime.v1.${service.getName()}/${rpc.getName()}`;
        return [path, `${rpc.getClientStreaming() ?? false} ${rpc.getServerStreaming() ?? false}`];
      }),
    );
    assert.deepEqual(served, new Map(declared));
  });
});

describe("the comparison", () => {
  const mutations: readonly (readonly [name: string, mutate: (file: FileProto) => void, expected: RegExp])[] = [
    ["a field's number", (file) => field(file, "Mount", "readonly").setNumber(99), /^field runtime\.v1\.Mount\.readonly: /],
    ["a field's type", (file) => field(file, "KeyValue", "value").setType(9), /^field runtime\.v1\.KeyValue\.value: /],
    ["a field's label", (file) => field(file, "ContainerConfig", "args").setLabel(1), /ContainerConfig\.args: .*repeated/],
    ["a field's name", (file) => field(file, "Device", "host_path").setName("path"), /Device\.(host_path|path): /],
    ["a field's message", (file) => field(file, "CpuUsage", "psi").setTypeName(".runtime.v1.PsiData"), /CpuUsage\.psi: .*PsiData/],
    ["a missing field", (file) => message(file, "ExecRequest").setFieldList([]), /ExecRequest\.cmd: .*absent/],
    [
      "a deprecation",
      (file) => field(file, "LinuxContainerSecurityContext", "apparmor_profile").clearOptions(),
      /apparmor_profile: .*deprecated/,
    ],
    ["a oneof", (file) => field(file, "Image", "uid").setOneofIndex(0), /Image\.uid: .*oneof/],
    ["a map's key", (file) => mapKey(file, "ImageSpec", "AnnotationsEntry").setType(5), /AnnotationsEntry\.key: /],
    [
      "a missing message",
      (file) => file.setMessageTypeList(file.getMessageTypeList().slice(1)),
      /^message runtime\.v1\.VersionRequest: .*absent/,
    ],
    ["an enum's value", (file) => file.getEnumTypeList()[0]?.getValueList()[0]?.setNumber(7), /^value runtime\.v1\.Protocol\.TCP: /],
    ["a nested enum", (file) => message(file, "SecurityProfile").setEnumTypeList([]), /^enum runtime\.v1\.SecurityProfile\.ProfileType: /],
    ["a stream", (file) => method(file, "GetContainerEvents").setServerStreaming(false), /GetContainerEvents: .*stream/],
    ["a method's answer", (file) => method(file, "Version").setOutputType(".runtime.v1.StatusResponse"), /Version: .*StatusResponse/],
    ["a missing service", (file) => file.setServiceList(file.getServiceList().slice(1)), /method .*RuntimeService/],
    ["the package", (file) => file.setPackage("runtime.v2"), /runtime\.v2/],
  ];
  for (const [name, mutate, expected] of mutations) {
    it(`reports ${name}, on either side`, () => {
      const mutated = ours.clone();
      mutate(mutated);
      for (const found of [differences(mutated, upstream), differences(upstream, mutated)]) {
        assert.ok(
          found.some((line) => expected.test(line)),
          `${String(expected)} is not among ${JSON.stringify(found.slice(0, 5))}`,
        );
      }
    });
  }

  it("reads every escape of a Go string", () => {
    const source = 'const x_rawDesc = "" +\n\t"\\n\\x00\\xff\\u00e9\\U0001f600\\101é" +\n\t"\\"\\\\"\n';
    assert.deepEqual(rawDescriptor(source), Buffer.concat([Buffer.from([10, 0, 255]), Buffer.from('é😀Aé"\\')]));
    assert.throws(() => rawDescriptor("package v1\n"), /no raw descriptor/);
  });
});

/** What one side says and the other does not. */
function differences(a: FileProto, b: FileProto): readonly string[] {
  const [left, right] = [factsOf(a), factsOf(b)];
  const keys = [...new Set([...left.keys(), ...right.keys()])].sort();
  return keys
    .filter((key) => left.get(key) !== right.get(key))
    .map((key) => `${key}: ${left.get(key) ?? "absent"} and not ${right.get(key) ?? "absent"}`);
}

/** Everything of a contract that a peer can notice. Order, comments and options for other languages are not. */
function factsOf(file: FileProto): Map<string, string> {
  const facts = new Map([["file", `${file.getPackage()} ${file.getSyntax()}`]]);
  const scope = file.getPackage() ?? "";
  for (const type of file.getMessageTypeList()) addMessage(facts, type, scope);
  for (const type of file.getEnumTypeList()) addEnum(facts, type, scope);
  for (const service of file.getServiceList()) {
    for (const rpc of service.getMethodList()) {
      const streams = [rpc.getClientStreaming() ? "client stream" : "", rpc.getServerStreaming() ? "server stream" : ""];
      const old = rpc.getOptions()?.getDeprecated() === true ? "deprecated" : "";
      const parts = [rpc.getInputType(), rpc.getOutputType(), ...streams, old];
      facts.set(`method ${scope}.${service.getName()}.${rpc.getName()}`, parts.join(" "));
    }
  }
  return facts;
}

function addMessage(facts: Map<string, string>, type: descriptor.DescriptorProto, scope: string): void {
  const name = `${scope}.${type.getName()}`;
  const options = type.getOptions();
  facts.set(
    `message ${name}`,
    `${options?.getMapEntry() === true ? "map entry" : ""} ${options?.getDeprecated() === true ? "deprecated" : ""}`,
  );
  const oneofs = type.getOneofDeclList().map((oneof) => oneof.getName() ?? "");
  for (const [index, oneof] of oneofs.entries()) facts.set(`oneof ${name}.${oneof}`, String(index));
  for (const member of type.getFieldList()) facts.set(`field ${name}.${member.getName()}`, describeField(member, oneofs));
  for (const nested of type.getNestedTypeList()) addMessage(facts, nested, name);
  for (const nested of type.getEnumTypeList()) addEnum(facts, nested, name);
}

function describeField(member: descriptor.FieldDescriptorProto, oneofs: readonly string[]): string {
  const options = member.getOptions();
  const parts = [
    `= ${member.getNumber()}`,
    member.getLabel() === 3 ? "repeated" : "",
    `type ${member.getType()} ${member.getTypeName()}`,
    `json ${member.getJsonName()}`,
    member.hasOneofIndex() ? `oneof ${oneofs[member.getOneofIndex() ?? 0] ?? "?"}` : "",
    member.getProto3Optional() ? "optional" : "",
    options?.hasPacked() ? `packed ${options.getPacked()}` : "",
    options?.getDeprecated() === true ? "deprecated" : "",
  ];
  return parts.filter((part) => part !== "").join(", ");
}

function addEnum(facts: Map<string, string>, type: descriptor.EnumDescriptorProto, scope: string): void {
  const name = `${scope}.${type.getName()}`;
  facts.set(`enum ${name}`, type.getOptions()?.getAllowAlias() === true ? "aliases" : "");
  for (const value of type.getValueList()) {
    facts.set(
      `value ${name}.${value.getName()}`,
      `= ${value.getNumber()}${value.getOptions()?.getDeprecated() === true ? " deprecated" : ""}`,
    );
  }
}

function compile(file: string): FileProto {
  const directory = mkdtempSync(join(tmpdir(), "cri-contract-"));
  try {
    const output = join(directory, "set");
    execFileSync("protoc", [`--descriptor_set_out=${output}`, "-I", join(import.meta.dirname, "..", ".."), file]);
    const [only] = descriptor.FileDescriptorSet.deserializeBinary(readFileSync(output)).getFileList();
    assert.ok(only);
    return only;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function message(file: FileProto, name: string): descriptor.DescriptorProto {
  const found = file.getMessageTypeList().find((type) => type.getName() === name);
  assert.ok(found, name);
  return found;
}

function field(file: FileProto, type: string, name: string): descriptor.FieldDescriptorProto {
  const found = message(file, type)
    .getFieldList()
    .find((member) => member.getName() === name);
  assert.ok(found, `${type}.${name}`);
  return found;
}

function mapKey(file: FileProto, type: string, name: string): descriptor.FieldDescriptorProto {
  const [key] =
    message(file, type)
      .getNestedTypeList()
      .find((nested) => nested.getName() === name)
      ?.getFieldList() ?? [];
  assert.ok(key, `${type}.${name}`);
  return key;
}

function method(file: FileProto, name: string): descriptor.MethodDescriptorProto {
  const found = file
    .getServiceList()
    .flatMap((service) => service.getMethodList())
    .find((rpc) => rpc.getName() === name);
  assert.ok(found, name);
  return found;
}
