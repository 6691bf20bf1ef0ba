/** Names: claimed once, numbered, given back; and what dead or half-finished processes left. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { identify, type ProcessIdentity } from "../../launcher/identity.ts";
import { type EnclaveRecord, writeRecord } from "../../launcher/record.ts";
import { checkName, nameLike, Registry } from "../../launcher/registry.ts";

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

let directory: string;
let stale: string[];
let registry: Registry;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "cloister-registry-"));
  folders.push(directory);
  stale = [];
  registry = new Registry(directory, ({ name }) => stale.push(name));
});

const FIELDS = { eif: "/app.eif", emulated: true, debug: false };

function self(): ProcessIdentity {
  const identity = identify(process.pid);
  if (identity === undefined) throw new Error("this process is not there");
  return identity;
}

function claim(name: string, isDefault = false, supervisor = self()) {
  return registry.claim({ name, isDefault }, supervisor, FIELDS);
}

function end(entry: { readonly folder: string; readonly record: EnclaveRecord }): void {
  const report = { kind: "terminated" } as const;
  writeRecord(entry.folder, { ...entry.record, state: "ended", end: { at: 1, report } });
}

const names = () => registry.list().map(({ record }) => record.name);
const dead = () => ({ ...self(), startTime: "1" });

describe("a name", () => {
  test("is one enclave's", () => {
    claim("app");
    expect(() => claim("app")).toThrow(`app: got a running enclave (supervisor ${process.pid})`);
    expect(names()).toEqual(["app"]);
  });

  test("by default gets a number", () => {
    expect(
      [claim("app", true), claim("app", true), claim("app", true)].map(({ record }) => record.name),
    ).toEqual(["app", "app_1", "app_2"]);
  });

  test("of one that ended is free, and its files go", () => {
    const first = claim("app");
    writeFileSync(join(first.folder, "log"), "old");
    end(first);
    expect(registry.find("app").record.state).toBe("ended");
    const second = claim("app", true);
    expect(second.record.name).toBe("app");
    expect(readdirSync(second.folder)).toEqual(["state.json"]);
  });

  test.each(["", ".lock", "..", "a/b", "a b", "ä", "a".repeat(65)])("%j is none", (name) => {
    expect(() => checkName(name)).toThrow("enclave name");
    expect(() => claim(name)).toThrow("enclave name");
    checkName(nameLike(name));
  });

  test("too long a path for a socket is said before anything is made", () => {
    const deep = join(directory, "d".repeat(80));
    mkdirSync(deep, { mode: 0o700 });
    const there = new Registry(deep);
    expect(() => there.claim({ name: "app", isDefault: true }, self(), FIELDS)).toThrow(
      /expected at most 107/,
    );
    expect(there.list()).toEqual([]);
  });

  test("of twenty processes at once, one gets it", { timeout: 120_000 }, async () => {
    const url = (path: string) =>
      JSON.stringify(fileURLToPath(new URL(`../../launcher/${path}`, import.meta.url)));
    const script = `
      const { Registry } = await import(${url("registry.ts")});
      const { identify } = await import(${url("identity.ts")});
      process.stdin.once("data", () => {
        try {
          new Registry(${JSON.stringify(directory)}).claim({ name: "app", isDefault: false }, identify(process.pid), {});
          console.log("got it");
        } catch (error) { console.log(error.code); }
        process.stdin.on("end", () => {}).resume();
      });
      console.log("ready");`;
    const children = Array.from({ length: 20 }, () =>
      spawn(process.execPath, ["--no-warnings", "--input-type=module", "-e", script], {
        stdio: ["pipe", "pipe", "inherit"],
      }),
    );
    const outputs = children.map(({ stdout }) => text(stdout));
    await Promise.all(children.map(({ stdout }) => once(stdout, "data")));
    for (const { stdin } of children) stdin.write("go\n");
    // They stay until all have tried: the name of one that ended would be free.
    await expect.poll(() => names().length, { timeout: 60_000 }).toBe(1);
    await Promise.all(children.map(async ({ stdout }) => once(stdout, "data")));
    for (const { stdin } of children) stdin.end();
    const said = (await Promise.all(outputs)).map((output) => output.trim().split("\n").at(-1));
    expect(said.filter((line) => line === "got it")).toHaveLength(1);
    expect(said.filter((line) => line === "E_NAME_TAKEN")).toHaveLength(19);
  });
});

describe("what is left of others", () => {
  test("a dead supervisor's enclave is removed by whoever looks, and told", () => {
    claim("app", false, dead());
    claim("other");
    expect(names()).toEqual(["other"]);
    expect(stale).toEqual(["app"]);
    expect(readdirSync(directory).sort()).toEqual([".lock", "other"]);
    expect(names()).toEqual(["other"]);
    expect(stale).toEqual(["app"]);
  });

  test("a claim takes a dead one's name", () => {
    claim("app", false, dead());
    expect(claim("app").record.supervisor).toEqual(self());
  });

  test("an ended one stays, its supervisor being gone", () => {
    end(claim("app", false, dead()));
    expect(names()).toEqual(["app"]);
    expect(registry.remove("app", ({ state }) => state === "running")).toBe(false);
    expect(registry.remove("app", ({ state }) => state === "ended")).toBe(true);
    expect(registry.remove("app", () => true)).toBe(false);
    expect(readdirSync(directory)).toEqual([".lock"]);
  });

  test("a claim and a removal that were killed half way", () => {
    for (const name of [".coming", ".going"]) {
      mkdirSync(join(directory, name));
      writeFileSync(join(directory, name, "state.next"), "{");
    }
    expect(names()).toEqual([]);
    expect(readdirSync(directory)).toEqual([".lock"]);
  });

  test("what is not ours is left alone", () => {
    mkdirSync(join(directory, "Documents"));
    writeFileSync(join(directory, "Documents/thesis"), "years");
    writeFileSync(join(directory, "note"), "");
    expect(names()).toEqual([]);
    expect(() => claim("Documents")).toThrow(/ENOTEMPTY/);
    expect(existsSync(join(directory, "Documents/thesis"))).toBe(true);
  });

  test("another release's record is named, not touched", () => {
    const { folder, record } = claim("app");
    writeFileSync(join(folder, "state.json"), JSON.stringify({ ...record, format: 2 }));
    expect(() => names()).toThrow(/state\.json: got format 2, expected 1/);
    expect(existsSync(folder)).toBe(true);
  });
});

test("find: by name, by id, or an error that lists the names", () => {
  const entry = claim("app");
  writeRecord(entry.folder, { ...entry.record, id: "i-0-enc1" });
  expect(registry.find("app").record.name).toBe("app");
  expect(registry.find("i-0-enc1").record.name).toBe("app");
  expect(() => registry.find("nope")).toThrow("nope: got no enclave of that name or id, expected one of app");
});
