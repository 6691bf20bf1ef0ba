import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Watcher } from "../../dev/watch.ts";

let folder: string;
let watcher: Watcher;
let told: string[][];
let unwatched: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cloister-watch-"));
  told = [];
  unwatched = [];
  watcher = new Watcher({
    onChange: (paths) => told.push([...paths]),
    onUnwatched: (path, code) => unwatched.push(`${code} ${path}`),
  });
});

afterEach(() => {
  watcher[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

const at = (name: string) => join(folder, name);
const changes = () => expect.poll(() => told.splice(0), { timeout: 20_000 });

test("a save in several steps is one change", async () => {
  writeFileSync(at("a.ts"), "1");
  watcher.watch([at("a.ts")], { all: false });
  writeFileSync(at("a.ts"), "");
  writeFileSync(at("a.ts"), "2");
  await changes().toEqual([[at("a.ts")]]);
});

test("an editor that renames a new file onto the old one is seen, time and again", async () => {
  writeFileSync(at("a.ts"), "0");
  watcher.watch([at("a.ts")], { all: false });
  for (const text of ["1", "2", "3"]) {
    writeFileSync(at(".a.ts.swp"), text);
    renameSync(at(".a.ts.swp"), at("a.ts"));
    await changes().toEqual([[at("a.ts")]]);
  }
});

test("files that are none of the app's are not, unless all are wanted", async () => {
  watcher.watch([at("a.ts")], { all: false });
  writeFileSync(at("b.ts"), "1");
  writeFileSync(at("a.ts"), "1");
  await changes().toEqual([[at("a.ts")]]);
  watcher.watch([at("a.ts")], { all: true });
  writeFileSync(at("c.ts"), "1");
  await changes().toEqual([[at("c.ts")]]);
});

test("a folder that went and came again is watched again", async () => {
  mkdirSync(at("src"));
  watcher.watch([at("src/a.ts")], { all: false });
  rmSync(at("src"), { recursive: true });
  await changes().not.toEqual([]);
  mkdirSync(at("src"));
  watcher.watch([at("src/a.ts")], { all: false });
  writeFileSync(at("src/a.ts"), "1");
  await changes().toEqual([[at("src/a.ts")]]);
});

test("a folder that cannot be watched is told once", () => {
  watcher.watch([at("none/a.ts")], { all: false });
  watcher.watch([at("none/a.ts")], { all: false });
  expect(unwatched).toEqual([`ENOENT ${at("none")}`]);
});
