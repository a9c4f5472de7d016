import { readFile } from "node:fs/promises";

/**
 * Frequency of the time-stamp counter in kHz; undefined where there is none or the kernel does not show it. The kernel's delay loop counts that
 * counter, so its BogoMIPS are twice the frequency in MHz, whatever the processor's clock does at the moment.
 */
export async function readTscKhz(path = "/proc/cpuinfo"): Promise<number | undefined> {
  const text = await readFile(path, "utf8").catch(() => "");
  const bogomips = Number(/^bogomips\s*:\s*([0-9.]+)$/im.exec(text)?.[1]);
  if (!/^flags\s*:.*\btsc\b/m.test(text) || !Number.isFinite(bogomips) || bogomips <= 0) return undefined;
  return Math.round(bogomips * 500);
}
