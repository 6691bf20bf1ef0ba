/** What PID 1 of a development image does with the files that the parent sends, and with processes that are killed. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ReplacedFile } from "../../format/development.ts";
import { replaceFiles } from "../../init/dev/files.ts";
import { readLines } from "../../init/dev/lines.ts";

let folder: string;
let app: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cloister-files-"));
  app = join(folder, "app");
  mkdirSync(app);
  writeFileSync(join(app, "main.mjs"), "one");
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

const file = (path: string, text: string, executable = false): ReplacedFile => {
  return { path, data: new TextEncoder().encode(text), executable };
};
const read = (path: string) => readFileSync(join(app, path), "utf8");
const replace = (files: readonly ReplacedFile[], removed: readonly string[] = []) =>
  replaceFiles(app, { generation: 1, files, removed });

test("files are made, replaced and removed, with their modes, and nothing else is left", () => {
  replace([file("main.mjs", "two"), file("assets/deep/tool", "run", true)]);
  expect([read("main.mjs"), read("assets/deep/tool")]).toEqual(["two", "run"]);
  expect(statSync(join(app, "assets/deep/tool")).mode & 0o777).toBe(0o755);
  expect(statSync(join(app, "main.mjs")).mode & 0o777).toBe(0o644);
  replace([], ["assets/deep/tool", "never/was"]);
  expect(readdirSync(app)).toEqual(["main.mjs"]);
  expect(readdirSync(folder)).toEqual(["app"]);
});

test("a channel whose other process is killed ends, and nothing else does", async () => {
  const lines: string[] = [];
  const channel = new PassThrough();
  readLines(channel, (line) => lines.push(line));
  channel.write("one\ntwo");
  await expect.poll(() => lines).toEqual(["one"]);
  const closed = new Promise((resolve) => channel.once("close", resolve));
  channel.destroy(Object.assign(new Error("killed"), { code: "ECONNRESET" }));
  await closed;
  expect(lines).toEqual(["one"]);
});

test("no name of the app's is in the way of another", () => {
  replace([file("main.mjs.new", "a file too"), file("main.mjs", "two")]);
  expect([read("main.mjs"), read("main.mjs.new")]).toEqual(["two", "a file too"]);
});

test("a file may become a folder, and the reverse", () => {
  replace([file("main.mjs/part", "two")], ["main.mjs"]);
  expect(read("main.mjs/part")).toBe("two");
  replace([file("main.mjs", "three")], ["main.mjs/part"]);
  expect(read("main.mjs")).toBe("three");
});

test("a file that is read while it is replaced is whole", () => {
  const { ino } = statSync(join(app, "main.mjs"));
  replace([file("main.mjs", "two")]);
  expect(statSync(join(app, "main.mjs")).ino).not.toBe(ino);
});
