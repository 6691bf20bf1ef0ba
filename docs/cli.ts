/** Writes docs/cli.md from the verbs' definitions: `node docs/cli.ts`. */
import { writeFileSync } from "node:fs";
import { helpText, type Verb } from "../cli/command.ts";
import { VERBS } from "../cli/main.ts";

/** The page, Markdown. */
export async function cliPage(): Promise<string> {
  return [
    "# The command line\n",
    "Made from the verbs' definitions by `docs/cli.ts`; `cloister VERB --help` prints the same. `cloister` alone says what to",
    "do next in this folder. What a verb finds out is on standard output, what it does meanwhile on standard error.\n",
    "`--json` makes standard output one JSON value (`logs`: one a line), also for an [error](errors.md), unless the value was",
    "there before it:\n",
    '```json\n{ "Error": { "Code": "E_EIF_READ", "Message": "…", "Fix": "…", "Details": "…" } }\n```\n',
    "Codes are stable; `Details` may be absent. `run --json` writes JSON lines on standard error: there an error is",
    '`{"type":"error","code":…,"message":…,"fix":…}`. Exit status: 0 done, 1 an error, 2 a wrong command line; `run` and `wait`',
    "end with the app's own status, or 125 for an error of theirs; `diff` with 1 for a difference and 2 for any trouble.\n",
    "In a terminal there are colors and progress, in a pipe neither; `NO_COLOR` turns colors off, `--quiet` progress and",
    "remarks. `CLOISTER_DEBUG` adds the stack trace to an internal error. `cloister completion` prints a script by which bash, zsh",
    "or fish completes all of this.\n",
    ...VERBS.map(({ name, summary }) => `- [\`${name}\`](#${name}): ${summary}`),
    "",
    ...(await Promise.all(VERBS.map(section))),
  ].join("\n");
}

async function section({ name, summary, load }: Verb): Promise<string> {
  return `## ${name}\n\n\`\`\`text\n${helpText(await load(), summary)}\`\`\`\n`;
}

if (import.meta.main) writeFileSync(new URL("cli.md", import.meta.url), await cliPage());
