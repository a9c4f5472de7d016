/** Writes docs/configuration.md from the configuration's schema. */
import { writeFileSync } from "node:fs";
import { renderReference } from "../src/config/reference.ts";

writeFileSync(new URL("../docs/configuration.md", import.meta.url), renderReference());
