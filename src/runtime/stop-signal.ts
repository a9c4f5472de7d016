import { constants } from "node:os";

import type { ContainerConfig } from "./container-config.ts";
import { invalid } from "./errors.ts";
import type { ImageConfig } from "./ports.ts";

const SIGTERM = 15;
const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** The client's stop signal, else the image's, else SIGTERM; a signal number. */
export function effectiveStopSignal(config: ContainerConfig, image: ImageConfig): number {
  if (config.stopSignal !== 0) return config.stopSignal;
  if (image.stopSignal === "") return SIGTERM;
  const number = parseSignal(image.stopSignal);
  if (number === undefined)
    throw invalid("config.image", `the image's StopSignal ${JSON.stringify(image.stopSignal)} is not a signal: set config.stop_signal`);
  return number;
}

/** A signal as images write it (`SIGTERM`, `term`, `15`, `SIGRTMIN+3`) or as CRI names it (`SIGRTMINPLUS3`). */
export function parseSignal(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text) >= 1 && Number(text) <= SIGRTMAX ? Number(text) : undefined;
  const name = `SIG${text.toUpperCase().replace(/^SIG/, "")}`;
  const standard = Object.entries(constants.signals).find(([known]) => known === name)?.[1];
  return standard ?? realTimeSignal(name);
}

function realTimeSignal(name: string): number | undefined {
  const match = /^SIGRT(MIN|MAX)(?:(?:PLUS|MINUS|[+-])(\d+))?$/.exec(name);
  if (match === null) return undefined;
  const offset = Number(match[2] ?? 0);
  const number = match[1] === "MIN" ? SIGRTMIN + offset : SIGRTMAX - offset;
  return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
}
