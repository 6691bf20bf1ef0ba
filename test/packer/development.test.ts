/** Images for development: what they have over others, and that no other has any of it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { filesOf, readContents } from "../../cli/contents.ts";
import { main } from "../../cli/main.ts";
import { decodeEnclaveJson } from "../../format/enclave.ts";
import { bundleApp } from "../../packer/bundle.ts";
import { buildDevelopment, type DevelopmentImage } from "../../packer/development.ts";
import { type BuildResult, build } from "../../packer/index.ts";
import { loadProject } from "../../packer/project.ts";
import { CACHE } from "../e2e/enclave.ts";

let directory: string;
let release: BuildResult;
let development: DevelopmentImage;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "cloister-development-"));
  writeFileSync(join(directory, "app.ts"), "console.log(1);\n");
  writeFileSync(join(directory, "package.json"), '{"type":"module"}');
  release = await build({ directory, cacheDirectory: CACHE });
  const project = await loadProject({ directory });
  const bundle = await bundleApp(project);
  const output = join(directory, "dev.eif");
  development = await buildDevelopment({ project, bundle, output, cacheDirectory: CACHE });
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What a verb prints. */
async function output(words: readonly string[]): Promise<string> {
  const stdout = new PassThrough();
  const { signal } = new AbortController();
  await main(words, { stdout, stderr: process.stderr, env: {}, directory, signal });
  stdout.end();
  return await text(stdout);
}

const files = async (eif: string) => filesOf((await readContents(eif)).sections);

test("is measured apart by its app's ramdisk, over the very base of every release", () => {
  expect(development.measurements.PCR1).toBe(release.measurements.PCR1);
  expect(development.measurements.PCR2).not.toBe(release.measurements.PCR2);
});

test("says so in its configuration, and has an init of its own; a release has neither", async () => {
  const [ours, theirs] = await Promise.all([files(development.eifPath), files(release.eifPath)]);
  const isDevelopment = (found: typeof ours) =>
    decodeEnclaveJson(found.get("app/enclave.json")?.data ?? new Uint8Array()).dev;
  expect([isDevelopment(ours), isDevelopment(theirs)]).toEqual([true, false]);
  const more = [...ours.keys()].filter((path) => !theirs.has(path));
  expect(more).toEqual(["lib/generation.cjs"]);
  expect(ours.get("init")?.sha256).not.toBe(theirs.get("init")?.sha256);
  expect(ours.get("init")?.mode).toBe(theirs.get("init")?.mode);
});

test("no program of a release knows how to replace the app", async () => {
  const theirs = await files(release.eifPath);
  const knows = (found: typeof theirs, path: string) =>
    /ReplacementDecoder|generation\.cjs/.test(Buffer.from(found.get(path)?.data ?? []).toString());
  const programs = ["init", "lib/housekeeping.cjs", "lib/preload.cjs"];
  expect(programs.filter((path) => knows(theirs, path))).toEqual([]);
  expect(knows(await files(development.eifPath), "init")).toBe(true);
});

test("inspect and describe say so of the file", async () => {
  const [inspected, described] = await Promise.all(
    ["inspect", "describe"].map((verb) => output([verb, development.eifPath])),
  );
  expect(inspected).toContain("built for development");
  expect(described).toMatch(/Development\s+true/);
  expect(await output(["inspect", release.eifPath])).not.toContain("built for development");
});

test("has memory for three processes of Node more", () => {
  expect(development.memoryMiB).toBe(release.memoryMiB.configured + 256);
});
