/** Each row of docs/compatibility.md names tests, and each of them is there by that name. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

const PAGE = "docs/compatibility.md";
const rows = readFileSync(PAGE, "utf8")
  .split("\n")
  .filter((line) => /^\| (?!.*\| test \|$)/.test(line));

/** The tests that the last cell names: `[label](path) › name`. */
function named(row: string): { readonly file: string; readonly name: string }[] {
  const cell = row.split(" | ").at(-1)?.replace(/ \|$/, "") ?? "";
  return cell.split("<br>").map((proof) => {
    const [, path = "", name = ""] = /^\[\w+\]\(([^)]+)\) › (.+)$/.exec(proof) ?? [];
    return { file: join("docs", path), name };
  });
}

test("has rows", () => expect(rows.length).toBeGreaterThan(40));

describe.each(rows)("%s", (row) => {
  test.each(named(row))("$file › $name", ({ file, name }) => {
    expect(name).not.toBe("");
    expect(existsSync(file)).toBe(true);
    const source = readFileSync(file, "utf8");
    const isThere = ['"', "`", "'"].some((quote) => source.includes(`${quote}${name}${quote}`));
    expect(isThere, `${file} has no test named ${name}`).toBe(true);
  });
});
