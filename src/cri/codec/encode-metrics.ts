import type { Metric, MetricDescriptor, PodSandboxMetrics } from "../../../api/gen/cri/v1/api.ts";
import { containerCgroup } from "../../host/cgroup-paths.ts";
import type { ContainerRecord } from "../../runtime/container.ts";
import type { PodRecord } from "../../runtime/pod.ts";
import type { ContainerSample, PodSample } from "../../runtime/stats.ts";
import type { Subject } from "./metric.ts";
import { METRICS } from "./metric-table.ts";

/** What every metric has, under the names that cAdvisor's users know. */
const COMMON_LABELS = ["container", "id", "image", "name", "namespace", "pod"];

/** The same for the daemon's whole life. */
export function encodeMetricDescriptors(): MetricDescriptor[] {
  return METRICS.map(({ name, help, labels }) => ({ name, help, labelKeys: [...COMMON_LABELS, ...labels] }));
}

/** Of a pod that was sampled in detail. */
export function encodePodMetrics({ pod, stats, containers }: PodSample): PodSandboxMetrics {
  const { record } = pod;
  const whole: Subject = {
    ...stats,
    startedAtNs: BigInt(record.createdAtNs),
    writableLayer: undefined,
    resources: undefined,
  };
  return {
    podSandboxId: record.id,
    metrics: encode(whole, podLabels(record)),
    containerMetrics: containers.map(({ container, stats: own }) => ({
      containerId: container.id,
      metrics: encode(containerSubject(container.record, own), containerLabels(record, container.record)),
    })),
  };
}

function containerSubject({ config, state }: ContainerRecord, stats: ContainerSample["stats"]): Subject {
  return {
    ...stats,
    startedAtNs: state.phase === "running" ? BigInt(state.startedAtNs) : undefined,
    resources: config.resources,
    interfaces: [],
  };
}

/** In the order of `COMMON_LABELS`. A pod as a whole has neither container nor image, as nobody's cgroup has in cAdvisor. */
function podLabels({ id, cgroup, config }: PodRecord): readonly string[] {
  return ["", cgroup.path, "", id, config.metadata.namespace, config.metadata.name];
}

/** The cgroup of a container of a microVM is the guest's: its path stands for where it would be on the host. */
function containerLabels({ cgroup, config: pod }: PodRecord, { id, config }: ContainerRecord): readonly string[] {
  const { path } = containerCgroup(cgroup, id);
  return [config.metadata.name, path, config.userSpecifiedImage, id, pod.metadata.namespace, pod.metadata.name];
}

function encode(subject: Subject, labels: readonly string[]): Metric[] {
  return METRICS.flatMap(({ name, type, values }) =>
    values(subject).map(([value, ...own]) => ({
      name,
      timestamp: subject.timestampNs,
      metricType: type,
      labelValues: [...labels, ...own],
      value: { value },
    })),
  );
}
