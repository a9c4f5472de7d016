/** Versions of the CNI spec that we speak, oldest first. */
export const supportedVersions: readonly string[] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/** True when `version` is `other` or newer. Both are of the form N.N.N. */
export function atLeast(version: string, other: string): boolean {
  const [left, right] = [version.split(".").map(Number), other.split(".").map(Number)];
  for (let part = 0; part < 3; part++) {
    const difference = (left[part] ?? 0) - (right[part] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** The newest of `offered` that we and every plugin speak. A plugin that did not say what it speaks (undefined) takes any. */
export function negotiate(offered: readonly string[], plugins: readonly (readonly string[] | undefined)[]): string | undefined {
  return supportedVersions
    .filter((version) => offered.includes(version) && plugins.every((spoken) => spoken?.includes(version) ?? true))
    .at(-1);
}
