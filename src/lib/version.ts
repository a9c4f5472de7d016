/** What Version answers and logs say; the same as package.json's. */
export const RUNTIME_NAME = "aurae-cri";
export const RUNTIME_VERSION = "0.1.0";
