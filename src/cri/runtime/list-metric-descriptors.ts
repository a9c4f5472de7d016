import type { ListMetricDescriptorsRequest, ListMetricDescriptorsResponse } from "../../../api/gen/cri/v1/api.ts";
import { encodeMetricDescriptors } from "../codec/encode-metrics.ts";

export async function listMetricDescriptors(_request: ListMetricDescriptorsRequest): Promise<ListMetricDescriptorsResponse> {
  return { descriptors: encodeMetricDescriptors() };
}
