import { type UserNamespace as CriUserNamespace, NamespaceMode, type NamespaceOption } from "../../../api/gen/cri/v1/api.ts";
import type { NamespaceModes, UserNamespace } from "../../runtime/sandbox-config.ts";

const MODES = {
  pod: NamespaceMode.POD,
  container: NamespaceMode.CONTAINER,
  node: NamespaceMode.NODE,
  target: NamespaceMode.TARGET,
} as const;

export function encodeNamespaces(modes: NamespaceModes): NamespaceOption {
  return {
    network: MODES[modes.network],
    pid: MODES[modes.pid],
    ipc: MODES[modes.ipc],
    targetId: modes.targetId,
    usernsOptions: modes.user && encodeUser(modes.user),
  };
}

function encodeUser({ uids, gids }: UserNamespace): CriUserNamespace {
  return { mode: NamespaceMode.POD, uids: [{ ...uids }], gids: [{ ...gids }] };
}
