/** What the vm room is built with. */
export interface VmOptions {
  readonly accelerator: "auto" | "kvm" | "tcg" | "off";
  /** QEMU's binary, absolute. */
  readonly qemuPath: string;
  /** Directory of the guest's files and their manifest. */
  readonly guestDir: string;
  /** File that keeps the verdict of the trial boot; its directory exists. */
  readonly verdictFile: string;
  readonly defaultMemoryBytes: number;
  readonly defaultVcpus: number;
  /** Of this boot of the host. */
  readonly bootId: string;
  /** Default /dev/kvm. */
  readonly kvmPath?: string;
  /** For a trial boot, from QEMU's start to the guest's sign. Default 8 s: a daemon has its verdict within 10 s of its start. */
  readonly trialTimeoutMs?: number;
  /** Wait after a negative verdict before the next trial; doubles up to the most. Default 10 min and 6 h. */
  readonly retryBaseMs?: number;
  readonly retryMaxMs?: number;
  /** How often it is looked whether `aurae-cri check --full` has brought a new verdict meanwhile. Default 10 s. */
  readonly noticeMs?: number;
}

export type ResolvedVmOptions = Required<VmOptions>;

export function resolveVmOptions(options: VmOptions): ResolvedVmOptions {
  return { kvmPath: "/dev/kvm", trialTimeoutMs: 8_000, retryBaseMs: 10 * 60_000, retryMaxMs: 6 * 3_600_000, noticeMs: 10_000, ...options };
}
