import type { UserQuery } from "../../api/gen/aurae/pod/v0/pod.ts";
import type { ContainerConfig } from "./container-config.ts";
import type { ImageConfig } from "./ports.ts";

/** What auraed is to look up in the root filesystem: the client's uid, else its user name, else the image's user. */
export function userQueryOf(config: ContainerConfig, image: ImageConfig): UserQuery {
  const { user, supplementalGroups, supplementalGroupsPolicy } = config.security;
  return {
    imageUser: user.type === "image" ? image.user : "",
    uid: user.type === "uid" ? BigInt(user.uid) : undefined,
    username: user.type === "username" ? user.username : "",
    gid: user.gid === undefined ? undefined : BigInt(user.gid),
    supplementalGroups: [...supplementalGroups],
    strictGroups: supplementalGroupsPolicy === "strict",
  };
}
