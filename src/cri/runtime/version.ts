import type { VersionRequest, VersionResponse } from "../../../api/gen/cri/v1/api.ts";
import { RUNTIME_NAME, RUNTIME_VERSION } from "../../lib/version.ts";

/** The kubelet's own API version, by convention; every runtime answers this. */
const KUBELET_API_VERSION = "0.1.0";

export async function version(_request: VersionRequest): Promise<VersionResponse> {
  return { version: KUBELET_API_VERSION, runtimeName: RUNTIME_NAME, runtimeVersion: RUNTIME_VERSION, runtimeApiVersion: "v1" };
}
