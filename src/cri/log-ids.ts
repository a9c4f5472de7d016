import type { LogFields } from "../lib/log.ts";

/** The request's and response's identifying fields, for the call's log line. Nothing else of them is ever logged. */
export function idsOf(request: unknown, response: unknown): LogFields {
  return {
    podId: text(request, "podSandboxId") ?? text(response, "podSandboxId"),
    containerId: text(request, "containerId") ?? text(response, "containerId"),
    pod: podName(request),
    container: text(field(field(request, "config"), "metadata"), "name"),
    image: text(field(request, "image"), "image") ?? text(response, "imageRef"),
  };
}

function podName(request: unknown): string | undefined {
  const metadata = field(field(request, "config") ?? field(request, "sandboxConfig"), "metadata");
  const namespace = text(metadata, "namespace");
  return namespace === undefined ? undefined : `${namespace}/${text(metadata, "name") ?? ""}`;
}

function text(value: unknown, name: string): string | undefined {
  const found = field(value, name);
  return typeof found === "string" && found !== "" ? found : undefined;
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null && name in value ? (value as Record<string, unknown>)[name] : undefined;
}
