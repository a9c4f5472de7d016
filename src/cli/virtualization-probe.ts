import type { VirtualizationReport } from "../runtime/ports.ts";

/** What `check` asks of whoever builds and boots guests. */
export interface VirtualizationProbe {
  /** QEMU's binary as the daemon would run it. */
  readonly qemuPath: string;
  /** Checks every part of the guest against its manifest. Throws with what is missing or differs. */
  guestFiles(options: { readonly signal: AbortSignal }): Promise<GuestFilesFound>;
  /** The verdict that a daemon on this node has kept; undefined: none, or one about other parts. Boots nothing. */
  keptVerdict(options: { readonly signal: AbortSignal }): Promise<VirtualizationReport | undefined>;
  /** Boots the guest once, as the daemon does. */
  trialBoot(options: { readonly signal: AbortSignal }): Promise<TrialBoot>;
}

export interface GuestFilesFound {
  readonly dir: string;
  /** One line: versions of kernel and initrd. */
  readonly versions: string;
}

export interface TrialBoot {
  readonly report: VirtualizationReport;
  /** From QEMU's start to the guest's first answer; undefined: it gave none. */
  readonly firstAnswerMs: number | undefined;
}
