/** Writes cloister.schema.json from packer/schema.ts: `node docs/schema.ts`. */
import { writeFileSync } from "node:fs";
import { configSchema } from "../packer/schema.ts";

/** The file, JSON text. */
export function schemaText(): string {
  return `${JSON.stringify(configSchema(), null, 2)}\n`;
}

if (import.meta.main) writeFileSync(new URL("../cloister.schema.json", import.meta.url), schemaText());
