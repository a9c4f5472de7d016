import { status } from "@grpc/grpc-js";

import { AgentError, type AgentFact } from "../agent/errors.ts";
import { CdiError } from "../cdi/errors.ts";
import { HostError } from "../host/errors.ts";
import { ImageError, type ImageFact } from "../image/errors.ts";
import { isTimeout } from "../lib/abort.ts";
import { unreachable } from "../lib/coded-error.ts";
import { QueueError } from "../lib/keyed-queue.ts";
import { NetnsError, type NetnsFact } from "../netns/errors.ts";
import { RuntimeError, type RuntimeFact } from "../runtime/errors.ts";
import { VmError, type VmFact } from "../vm/errors.ts";
import { InvalidArgumentError } from "./errors.ts";

export interface GrpcStatus {
  readonly code: status;
  readonly details: string;
}

/** The one table from our errors to gRPC. What no room declared becomes Internal: its cause goes to the log, not to the client. */
export function statusOf(error: unknown, signal: AbortSignal): GrpcStatus {
  if (signal.aborted)
    return { code: isTimeout(signal.reason) ? status.DEADLINE_EXCEEDED : status.CANCELLED, details: String(signal.reason) };
  if (error instanceof InvalidArgumentError) return { code: status.INVALID_ARGUMENT, details: error.message };
  if (error instanceof RuntimeError) return runtimeStatus(error.fact, error.message);
  if (error instanceof ImageError) return imageStatus(error.fact, error.message);
  if (error instanceof NetnsError) return { code: netnsCode(error.fact), details: error.message };
  if (error instanceof AgentError) return { code: agentCode(error.fact), details: error.message };
  if (error instanceof CdiError) return { code: status.FAILED_PRECONDITION, details: error.message };
  if (error instanceof VmError) return { code: vmCode(error.fact), details: error.message };
  if (error instanceof HostError)
    return { code: error.fact.code === "ERR_CGROUP_PARENT" ? status.INVALID_ARGUMENT : status.INTERNAL, details: error.message };
  if (error instanceof QueueError)
    return { code: error.fact.code === "ERR_QUEUE_FULL" ? status.RESOURCE_EXHAUSTED : status.UNAVAILABLE, details: error.message };
  return { code: status.INTERNAL, details: "internal error: the daemon's log has the cause under this call's requestId" };
}

/** The kubelet tells an image that could not be mounted by the message's prefix, on code Unknown. */
function runtimeStatus(fact: RuntimeFact, details: string): GrpcStatus {
  if (fact.code === "ERR_IMAGE_VOLUME") return { code: status.UNKNOWN, details: `ImageVolumeMountFailed: ${details}` };
  return { code: runtimeCode(fact), details };
}

function runtimeCode(fact: Exclude<RuntimeFact, { code: "ERR_IMAGE_VOLUME" }>): status {
  switch (fact.code) {
    case "ERR_NOT_FOUND":
      return status.NOT_FOUND;
    case "ERR_AMBIGUOUS_ID":
    case "ERR_INVALID":
      return status.INVALID_ARGUMENT;
    case "ERR_NAME_IN_USE":
      return status.ALREADY_EXISTS;
    case "ERR_WRONG_STATE":
    case "ERR_CANNOT_GROW":
      return status.FAILED_PRECONDITION;
    case "ERR_PLACEMENT":
      return placementCode(fact.reason);
    case "ERR_TIMEOUT":
      return status.DEADLINE_EXCEEDED;
    case "ERR_TOO_MANY_STREAMS":
      return status.RESOURCE_EXHAUSTED;
    case "ERR_VM_FAILED":
      return status.INTERNAL;
    case "ERR_NOT_BUILT":
      return status.UNIMPLEMENTED;
    case "ERR_EVENTS_DROPPED":
      return status.RESOURCE_EXHAUSTED;
    case "ERR_SHUTTING_DOWN":
      return status.UNAVAILABLE;
    default:
      return unreachable(fact);
  }
}

function placementCode(reason: string): status {
  if (reason === "UnknownHandler") return status.INVALID_ARGUMENT;
  return reason === "VirtualizationUnknown" ? status.UNAVAILABLE : status.FAILED_PRECONDITION;
}

function netnsCode(fact: NetnsFact): status {
  switch (fact.code) {
    case "ERR_CNI_NOT_READY":
    case "ERR_CNI_CONFIG":
    case "ERR_CNI_PLUGIN_MISSING":
    case "ERR_NETWORK_CLOSED":
      return status.UNAVAILABLE;
    case "ERR_NETWORK_REQUEST":
      return status.INVALID_ARGUMENT;
    case "ERR_NETWORK_ABORTED":
      return status.CANCELLED;
    case "ERR_CNI_PLUGIN":
    case "ERR_CNI_EXEC":
    case "ERR_CNI_RESULT":
    case "ERR_NETWORK_RECORD":
      return status.INTERNAL;
    default:
      return unreachable(fact);
  }
}

function vmCode(fact: VmFact): status {
  switch (fact.code) {
    case "ERR_VM_TOO_SMALL":
    case "ERR_VM_TOO_LARGE":
      return status.INVALID_ARGUMENT;
    case "ERR_GUEST_FILES":
    case "ERR_QEMU_MISSING":
    case "ERR_QEMU_VERSION":
      return status.FAILED_PRECONDITION;
    case "ERR_VM_UNAVAILABLE":
    case "ERR_QMP_CONNECT":
    case "ERR_QMP_CLOSED":
      return status.UNAVAILABLE;
    case "ERR_LAYER_SLOTS":
    case "ERR_LAYER_SPACE":
      return status.RESOURCE_EXHAUSTED;
    case "ERR_LAYER_INVALID":
    case "ERR_QMP_COMMAND":
    case "ERR_QMP_PROTOCOL":
    case "ERR_VM_TEMPLATE":
      return status.INTERNAL;
    default:
      return unreachable(fact);
  }
}

/** Auraed's own codes carry over; its Internal stays ours. */
function agentCode(fact: AgentFact): status {
  switch (fact.code) {
    case "ERR_AGENT_REFUSED":
      return fact.status;
    case "ERR_AGENT_UNREACHABLE":
      return status.UNAVAILABLE;
    case "ERR_AGENT_ABORTED":
      return status.CANCELLED;
    case "ERR_AGENT_VERSION":
      return status.FAILED_PRECONDITION;
    default:
      return unreachable(fact);
  }
}

/** The kubelet tells an unavailable registry by the message's prefix, on code Unknown. */
function imageStatus(fact: ImageFact, details: string): GrpcStatus {
  if (fact.code === "ERR_REGISTRY_UNAVAILABLE") return { code: status.UNKNOWN, details: `RegistryUnavailable: ${details}` };
  return { code: imageCode(fact), details };
}

function imageCode(fact: Exclude<ImageFact, { code: "ERR_REGISTRY_UNAVAILABLE" }>): status {
  switch (fact.code) {
    case "ERR_INVALID_REFERENCE":
    case "ERR_AMBIGUOUS_REFERENCE":
      return status.INVALID_ARGUMENT;
    case "ERR_IMAGE_NOT_FOUND":
    case "ERR_REGISTRY_NOT_FOUND":
      return status.NOT_FOUND;
    case "ERR_REGISTRY_UNAUTHORIZED":
      return status.UNAUTHENTICATED;
    case "ERR_HOSTS_TOML":
    case "ERR_MANIFEST":
    case "ERR_UNSUPPORTED_MEDIA_TYPE":
    case "ERR_NO_MATCHING_PLATFORM":
    case "ERR_LAYER_MALFORMED":
      return status.FAILED_PRECONDITION;
    case "ERR_LAYER_LIMIT":
    case "ERR_NO_SPACE":
      return status.RESOURCE_EXHAUSTED;
    case "ERR_DIGEST_MISMATCH":
      return status.DATA_LOSS;
    case "ERR_PULL_ABORTED":
      return fact.timedOut ? status.DEADLINE_EXCEEDED : status.CANCELLED;
    case "ERR_IMAGES_CLOSED":
      return status.UNAVAILABLE;
    case "ERR_REGISTRY_RESPONSE":
    case "ERR_IMAGE_IO":
      return status.INTERNAL;
    default:
      return unreachable(fact);
  }
}
