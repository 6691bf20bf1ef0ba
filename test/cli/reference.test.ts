/** The reference of the command line is what the verbs' definitions say. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { VERBS } from "../../cli/main.ts";
import { cliPage } from "../../docs/cli.ts";

test("docs/cli.md is current: `node docs/cli.ts` writes it", async () => {
  const page = readFileSync("docs/cli.md", "utf8");
  expect(page).toBe(await cliPage());
  for (const { name } of VERBS) expect(page).toContain(`\n## ${name}\n`);
});
