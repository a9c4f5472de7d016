import type { LinuxContainerResources } from "../../../api/gen/cri/v1/api.ts";
import type { HugepageLimit, Resources, StringMap } from "../../runtime/sandbox-config.ts";
import { InvalidArgumentError } from "../errors.ts";
import { safeNumber, sortedMap } from "./fields.ts";

const MAX_OOM_SCORE_ADJ = 1000;

/** CRI's zero is "unset": an absent field. */
export function decodeResources(linux: LinuxContainerResources | undefined, field: string): Resources {
  if (linux === undefined) return {};
  const { memoryLimitInBytes: memory, memorySwapLimitInBytes: swap } = linux;
  if (swap > 0n && swap < memory) {
    throw new InvalidArgumentError(
      `${field}.memory_swap_limit_in_bytes`,
      `counts memory and swap together: must be at least memory_limit_in_bytes ${memory}, is ${swap}`,
    );
  }
  const oomScoreAdj = safeNumber(linux.oomScoreAdj, `${field}.oom_score_adj`);
  if (Math.abs(oomScoreAdj) > MAX_OOM_SCORE_ADJ) {
    throw new InvalidArgumentError(
      `${field}.oom_score_adj`,
      `must be between -${MAX_OOM_SCORE_ADJ} and ${MAX_OOM_SCORE_ADJ}, is ${oomScoreAdj}`,
    );
  }
  return {
    ...positive("cpuPeriodUs", linux.cpuPeriod, `${field}.cpu_period`),
    ...withMinusOne("cpuQuotaUs", linux.cpuQuota, `${field}.cpu_quota`),
    ...positive("cpuShares", linux.cpuShares, `${field}.cpu_shares`),
    ...positive("memoryLimitBytes", linux.memoryLimitInBytes, `${field}.memory_limit_in_bytes`),
    ...withMinusOne("memorySwapLimitBytes", linux.memorySwapLimitInBytes, `${field}.memory_swap_limit_in_bytes`),
    ...(oomScoreAdj === 0 ? {} : { oomScoreAdj }),
    ...(linux.cpusetCpus === "" ? {} : { cpusetCpus: cpuset(linux.cpusetCpus, `${field}.cpuset_cpus`) }),
    ...(linux.cpusetMems === "" ? {} : { cpusetMems: cpuset(linux.cpusetMems, `${field}.cpuset_mems`) }),
    ...(linux.hugepageLimits.length === 0 ? {} : { hugepageLimits: decodeHugepages(linux, field) }),
    ...(Object.keys(linux.unified).length === 0 ? {} : { unified: decodeUnified(linux.unified, `${field}.unified`) }),
  };
}

/** Keys become file names in the container's cgroup, and only there. */
function decodeUnified(unified: { readonly [key: string]: string }, field: string): StringMap {
  const wrong = Object.keys(unified).find((key) => !/^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$/.test(key));
  if (wrong !== undefined)
    throw new InvalidArgumentError(field, `${JSON.stringify(wrong)} is not a file of cgroup v2, such as memory.high`);
  return sortedMap(unified);
}

function positive<K extends string>(key: K, value: bigint, field: string): Partial<Record<K, number>> {
  if (value < 0n) throw new InvalidArgumentError(field, `must not be negative, is ${value}: 0 leaves it unset`);
  return value === 0n ? {} : ({ [key]: safeNumber(value, field) } as Record<K, number>);
}

/** -1 is "no limit". */
function withMinusOne<K extends string>(key: K, value: bigint, field: string): Partial<Record<K, number>> {
  return value === -1n ? ({ [key]: -1 } as Record<K, number>) : positive(key, value, field);
}

function cpuset(value: string, field: string): string {
  if (!/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(value))
    throw new InvalidArgumentError(field, `must be a list such as 0-2,4, is ${JSON.stringify(value)}`);
  return value;
}

function decodeHugepages(linux: LinuxContainerResources, field: string): readonly HugepageLimit[] {
  return linux.hugepageLimits.map(({ pageSize, limit }) => {
    if (!/^\d+(KB|MB|GB)$/.test(pageSize)) {
      throw new InvalidArgumentError(`${field}.hugepage_limits.page_size`, `must be a size such as 2MB, is ${JSON.stringify(pageSize)}`);
    }
    return { pageSize, limitBytes: safeNumber(limit, `${field}.hugepage_limits.limit`) };
  });
}
