/** Writes docs/errors.md from the catalogue: `node docs/errors.ts`. */
import { writeFileSync } from "node:fs";
import { ERRORS } from "../format/errors.ts";

/** The page, Markdown. */
export function errorsPage(): string {
  const entries = Object.entries(ERRORS)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, { cause, fix }]) => `## ${code}\n\n${cause}\n\n**Fix:** ${fix}\n`);
  return [
    "# Errors\n",
    "Made from `format/errors.ts` by `docs/errors.ts`. Every error names where, what was found and what was expected;",
    "this page adds why and what to do. With `--json` the same code is in `Error.Code` on standard output. Exit status:",
    "1 for an error, 2 for a wrong command line, 125 when `cloister run` itself fails (else it is the app's own).\n",
    ...entries,
  ].join("\n");
}

if (import.meta.main) writeFileSync(new URL("errors.md", import.meta.url), errorsPage());
