import { CgroupDriver, type RuntimeConfigRequest, type RuntimeConfigResponse } from "../../../api/gen/cri/v1/api.ts";
import type { Call } from "../call.ts";

export async function runtimeConfig(_request: RuntimeConfigRequest, call: Call): Promise<RuntimeConfigResponse> {
  const systemd = call.runtime.options.cgroupDriver === "systemd";
  return { linux: { cgroupDriver: systemd ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS } };
}
