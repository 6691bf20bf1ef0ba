/** docs/configuration.md against the code: every field, its default, its messages. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parseConfig } from "../../packer/config.ts";

const sections = readFileSync("docs/configuration.md", "utf8").split("\n## `").slice(1);
const FILE = "cloister.config.ts";

/** The page's own words as a value. */
function evaluate(code: string): Record<string, unknown> {
  return new Function(`return (${code})`)();
}

function messageOf(config: unknown): string {
  try {
    parseConfig(config, FILE);
  } catch (error) {
    return (error as Error).message;
  }
  return "none";
}

test("has every field, and no other", () => {
  const named = sections.map((section) => section.slice(0, section.indexOf("`")));
  const known = messageOf({ nonsense: 1 }).split("expected only ")[1]?.split(", ") ?? [];
  expect(named).toEqual(known);
});

const defaults = sections.flatMap((section) => {
  const [, value] = /^Default: `(.+)`$/m.exec(section) ?? [];
  const field = section.slice(0, section.indexOf("`"));
  return value === undefined ? [] : [[field, value] as const];
});

test.each(defaults)("%s is by default %s", (field, value) => {
  expect(parseConfig(evaluate(`{ ${field}: ${value} }`), FILE)).toEqual(parseConfig({}, FILE));
});

const rows = sections.flatMap((section) => [...section.matchAll(/^\| `(.+?)` \| `(.+)` \|$/gm)]);

test.each(rows.map(([, written = "", message = ""]) => [written, message]))("%s", (written, message) => {
  expect(messageOf(evaluate(`{ ${written} }`))).toBe(`${FILE}: ${message}`);
});
