/** The tables of `build --report`: width, alignment, what hostile names can do. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { breakdown, reportJson } from "../../cli/breakdown.ts";
import type { Report, ReportPackage } from "../../packer/index.ts";

function found(name: string, more: Partial<ReportPackage> = {}): ReportPackage {
  return {
    name,
    version: "1.0.0",
    license: "MIT",
    purl: `pkg:npm/${name}@1.0.0`,
    digests: [],
    sizeBytes: 2500,
    files: 1,
    isCopied: false,
    why: ["app.ts", name],
    imports: [],
    ...more,
  };
}

function report(packages: readonly ReportPackage[]): Report {
  return {
    name: "app",
    version: "1.2.3",
    entry: "app.ts",
    sizeBytes: 9000,
    bundleBytes: 5000,
    modules: [
      { path: "node_modules/express/x.js", sizeBytes: 2500, package: "express@1.0.0" },
      { path: "app.ts", sizeBytes: 70 },
    ],
    packages,
    assets: [{ path: "assets/logo.png", sizeBytes: 1_500_000 }],
    imports: [],
    platform: [found("node")],
  };
}

const SECTIONS = [{ type: "Kernel", offset: 548, sizeBytes: 2_651_136 }];

test("says what is in it, how much, under which license, and who imports it", () => {
  const deep = found("deep", {
    license: undefined,
    why: ["app.ts", "one", "a-name-of-some-length", "three", "deep"],
  });
  const addon = found("bcrypt", { isCopied: true, files: 25 });
  const text = breakdown(report([found("express"), deep, addon]), SECTIONS);
  expect(text).toMatch(/^Bundled: 5\.0 kB of 2 modules$/m);
  expect(text).toMatch(/^ +SIZE +MODULES +PACKAGE +LICENSE +IMPORTED BY$/m);
  expect(text).toMatch(/^ +70 B +1 +the app's own$/m);
  expect(text).toMatch(/^ +2\.5 kB +1 +express 1\.0\.0 +MIT +app\.ts$/m);
  expect(text).toMatch(/^ +2\.5 kB +1 +deep 1\.0\.0 +not stated +app\.ts → … → three$/m);
  expect(text).toMatch(/^ +2\.5 kB +25 files +bcrypt 1\.0\.0 +MIT +app\.ts$/m);
  expect(text).toMatch(/^ +1\.5 MB +assets\/logo\.png$/m);
  expect(text).toMatch(/^ +2\.7 MB +Kernel$/m);
});

test("long tables end with how many more there are", () => {
  const many = Array.from({ length: 40 }, (_, index) => found(`package-${index}`));
  const text = breakdown(report(many), SECTIONS);
  expect(text).toContain("package-17 ");
  expect(text).not.toContain("package-18 ");
  expect(text).toMatch(/^ {2}and \d+ more: --json lists all$/m);
});

test("no line is longer than 100 columns, and no name drives the terminal", () => {
  const name = fc.string({ unit: "binary", minLength: 1, maxLength: 150 });
  fc.assert(
    fc.property(
      fc.array(name, { maxLength: 5 }),
      fc.array(name, { minLength: 1, maxLength: 9 }),
      (names, why) => {
        const packages = names.map((text) => found(text, { license: text, why }));
        const lines = breakdown(report(packages), SECTIONS).split("\n");
        expect(lines.filter((line) => line.length > 100)).toEqual([]);
        expect(lines.filter((line) => /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/.test(line))).toEqual([]);
      },
    ),
  );
});

test("the machine form has the keys of the other verbs' JSON", () => {
  expect(reportJson(report([found("express")]))).toMatchObject({
    Name: "app",
    Packages: [{ Name: "express", SizeBytes: 2500, Why: ["app.ts", "express"], IsCopied: false }],
    Modules: [{ Path: "node_modules/express/x.js", Package: "express@1.0.0" }, { Path: "app.ts" }],
  });
});
