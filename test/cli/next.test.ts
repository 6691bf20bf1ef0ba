/** `cloister` alone: the folder's state, and a next step that exists. */
import { chmodSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { VERBS } from "../../cli/main.ts";
import { nextSteps, type Surroundings } from "../../cli/next.ts";
import { type Files, folder } from "../packer/folder.ts";
import { call } from "./image.ts";

interface Case extends Partial<Omit<Surroundings, "directory">> {
  readonly files?: Files;
  /** Ages of files, seconds. */
  readonly ages?: Readonly<Record<string, number>>;
}

function advice({ files = {}, ages = {}, ...around }: Case): string {
  const directory = folder(files);
  for (const [file, age] of Object.entries(ages)) utimesSync(join(directory, file), 2e9 - age, 2e9 - age);
  return nextSteps({ isParent: false, running: [], program: "cloister", directory, ...around });
}

const APP: Files = { "package.json": "{}", "src/app.ts": "", "node_modules/x/index.js": "" };
const BUILT: Case = {
  files: { ...APP, "app.eif": "", ".git/x.ts": "", "src/app.test.ts": "", "app.cdx.json": "" },
  ages: { "package.json": 9, "src/app.ts": 8, "app.eif": 5, "node_modules/x/index.js": 0 },
};

const CASES: Readonly<Record<string, readonly [Case, readonly string[]]>> = {
  "an empty folder": [{}, ["There is no app", "npm create cloister my-app"]],
  "a folder with no app": [{ files: { "notes.txt": "" } }, ["There is no app"]],
  "an app": [{ files: APP }, ["no image of it yet", "cloister dev", "cloister build"]],
  "one module": [{ files: { "app.ts": "" } }, ["cloister dev", "cloister build"]],
  "an image on a laptop": [
    BUILT,
    ["app.eif is up to date", "no /dev/nitro_enclaves", "cloister run app.eif --emulator"],
  ],
  "an image on a parent": [
    { ...BUILT, isParent: true },
    ["cloister doctor app.eif", "cloister run app.eif --publish"],
  ],
  "an edit since": [
    { ...BUILT, ages: { ...BUILT.ages, "src/app.ts": 1 } },
    ["app.eif is older than src/app.ts", "cloister build"],
  ],
  "an image alone": [
    { files: { "it's.eif": "", "notes.txt": "" } },
    ["cloister run 'it'\\''s.eif' --emulator"],
  ],
  "an enclave that runs": [
    { ...BUILT, running: ["signer"] },
    ["signer is running", "cloister logs -f signer"],
  ],
  "two of them": [{ running: ["a", "b"] }, ["2 enclaves are running: a, b", "cloister stop a"]],
  npx: [{ files: APP, program: "npx cloister" }, ["  npx cloister build", "`npx cloister --help`"]],
};

test.each(Object.entries(CASES))("%s is seen, and leads to verbs that exist", (_, [around, expected]) => {
  const text = advice(around);
  for (const part of expected) expect(text).toContain(part);
  expect(text.split("\n").filter((line) => line.length > 100)).toEqual([]);
  const named = [...text.matchAll(/^ {2}(?:npx )?cloister (\w+)/gm)].map(([, verb]) => verb);
  expect(named.filter((verb) => !VERBS.some(({ name }) => name === verb))).toEqual([]);
});

test("a folder that this user may not read is passed over", () => {
  const directory = folder({ "app.ts": "", "locked/secret.ts": "" });
  chmodSync(directory, 0o755);
  chmodSync(join(directory, "locked"), 0);
  const around = { isParent: false, running: [], program: "cloister", directory };
  // Root may read everything; 65534 is nobody.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65_534);
  try {
    expect(nextSteps(around)).toContain("cloister build");
  } finally {
    if (isRoot) process.seteuid?.(0);
    chmodSync(join(directory, "locked"), 0o755);
  }
});

test("is what the program prints, with status 0", async () => {
  const { status, stdout } = await call([], false, folder({ "app.ts": "" }));
  expect(status).toBe(0);
  expect(stdout).toContain("cloister build");
});
