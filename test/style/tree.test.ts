/** Promises about the tree itself: documents are true, files stay small, nothing leaks from where it was written. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { errorsPage } from "../../docs/errors.ts";
import { ERRORS } from "../../format/errors.ts";

// Tracked, plus new files that are not ignored.
const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file !== "" && existsSync(file));
const markdown = files.filter((file) => file.endsWith(".md") && !file.startsWith("kernel/x86_64/"));
// Of this repository, and of the projects that `npm create cloister` makes.
const scripts = ["package.json", "create/templates/fetch/package.json"].flatMap((path) =>
  Object.keys((JSON.parse(readFileSync(path, "utf8")) as PackageJson).scripts),
);

interface PackageJson {
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}

describe.each(markdown)("%s", (file) => {
  const text = readFileSync(file, "utf8");

  test("links lead somewhere", () => {
    const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target ?? "");
    const local = targets.filter((target) => !/^[a-z]+:/.test(target) && !target.startsWith("#"));
    const dead = local.filter((target) => !existsSync(join(dirname(file), target.split("#")[0] ?? "")));
    expect(dead).toEqual([]);
  });

  test("names only npm scripts that exist", () => {
    const named = [...text.matchAll(/npm run (?:--silent )?([\w:-]+)/g)].map(([, name]) => name ?? "");
    expect(named.filter((name) => !scripts.includes(name))).toEqual([]);
  });
});

test("sources stay readable: about 300 lines a file, 350 at most", () => {
  const long = files
    .filter((file) => file.endsWith(".ts") && !file.startsWith("test/"))
    .map((file) => ({ file, lines: readFileSync(file, "utf8").split("\n").length - 1 }))
    .filter(({ lines }) => lines > 350);
  expect(long).toEqual([]);
});

test("every dependency has its reason", () => {
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(
    readFileSync("package.json", "utf8"),
  ) as PackageJson;
  const reasons = readFileSync("docs/dependencies.md", "utf8");
  const all = Object.entries({ ...dependencies, ...optionalDependencies, ...devDependencies });
  expect(all.filter(([name]) => !reasons.includes(`\`${name}\``)).map(([name]) => name)).toEqual([]);
  expect(all.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
});

test("docs/errors.md is made from the catalogue", () => {
  expect(readFileSync("docs/errors.md", "utf8")).toBe(errorsPage());
});

test("every error code of the catalogue is thrown somewhere", () => {
  const source = files
    .filter((file) =>
      /^(?:cli|client|dev|emulator|format|init|launcher|linux|packer|runtime)\/.*\.ts$/.test(file),
    )
    .filter((file) => file !== "format/errors.ts")
    .map((file) => readFileSync(file, "utf8"))
    .join("\n");
  expect(Object.keys(ERRORS).filter((code) => !source.includes(`"${code}"`))).toEqual([]);
});

test("no lockfile entry names a registry", () => {
  expect(readFileSync("package-lock.json", "utf8")).not.toMatch(/"resolved":/);
});

test("nothing names the machine it was written on", () => {
  const telling = /\/(?:work|root|home)\/(?!\$|\.)[a-z]|registry\.npmjs|deb\.debian\.org/;
  const named = files
    .filter((file) => statSync(file).size < 1_000_000 && !file.startsWith("test/vectors/"))
    .filter((file) => file !== "test/style/tree.test.ts" && telling.test(readFileSync(file, "latin1")));
  expect(named).toEqual([]);
});
