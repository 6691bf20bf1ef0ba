/** `cloister build` as a function: its report, its bills of materials, what `--quiet` leaves away. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { folder } from "../packer/folder.ts";
import { call } from "./image.ts";

const FILES = {
  "package.json": '{"name":"app","version":"1.2.3"}',
  "app.ts": 'import { a } from "alpha";\nif (a === -0) console.log(a);',
  "node_modules/alpha/package.json": '{"name":"alpha","version":"4.5.6","license":"MIT"}',
  "node_modules/alpha/index.js": "exports.a = 1;",
};

test("one JSON value with the report; bills of materials beside it; no remarks when quiet", async () => {
  const directory = folder(FILES);
  const build = (...words: string[]) =>
    call(["build", "--compression", "none", "--sbom", "a.cdx.json", ...words], false, directory);
  const { status, stdout, stderr } = await build("--sbom", "a.spdx.json", "--report", "--json", "--quiet");
  expect([status, stderr]).toEqual([0, ""]);
  const { Measurements, Report } = JSON.parse(stdout);
  expect(Report.Packages).toMatchObject([
    { Name: "alpha", Version: "4.5.6", License: "MIT", Why: ["app.ts", "alpha"] },
  ]);
  const bom = readFileSync(join(directory, "a.cdx.json"), "utf8");
  expect(bom).toContain(Measurements.PCR2);
  expect(readFileSync(join(directory, "a.spdx.json"), "utf8")).toContain("pkg:npm/alpha@4.5.6");

  const text = await build("--report");
  expect(text.stderr).toMatch(/^warning: app\.ts:2: /);
  expect(text.stdout).toMatch(/^ +\d+ B +1 +alpha 4\.5\.6 +MIT +app\.ts$/m);
  expect(readFileSync(join(directory, "a.cdx.json"), "utf8")).toBe(bom);
});

test.each([
  [["--sbom", "app.json"], 2, "a name that ends in .cdx.json or .spdx.json"],
  [["--sbom", "none/app.cdx.json"], 1, "E_WRITE"],
])("%j is refused", async (words, expected, found) => {
  const { status, stderr } = await call(["build", "--compression", "none", ...words], false, folder(FILES));
  expect(status).toBe(expected);
  expect(stderr).toContain(found);
});
