/** Bounded logs: what they keep, how they are followed, and what a full disk does to them. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { followRing } from "../../launcher/follow.ts";
import { Registry } from "../../launcher/registry.ts";
import { Ring } from "../../launcher/ring.ts";
import { Shelf } from "../../launcher/shelf.ts";

const root = mkdtempSync(join(tmpdir(), "cloister-ring-"));
afterAll(() => rmSync(root, { recursive: true }));
let path: string;
let number = 0;
beforeEach(() => {
  path = join(root, `log${number++}`);
});

const LIMIT = 4096;
const line = (index: number) => Buffer.from(`${String(index).padStart(7, "0")}\n`);

async function read(over = AbortSignal.abort()): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of followRing(path, over)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function size(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

describe("a ring", () => {
  test("keeps the latest half to whole of its limit, in whole writes", async () => {
    const ring = new Ring(path, LIMIT);
    for (let index = 0; index < 10_000; index++) ring.write(line(index));
    ring.close();
    const kept = await read();
    expect(kept.length).toBeGreaterThanOrEqual(LIMIT / 2);
    expect(kept.length).toBeLessThanOrEqual(LIMIT);
    expect(size(path) + size(`${path}.1`)).toBe(kept.length);
    const lines = kept.trimEnd().split("\n").map(Number);
    expect(lines).toEqual(lines.map((_, index) => 10_000 - lines.length + index));
  });

  test("takes one write that is larger than itself", async () => {
    const ring = new Ring(path, LIMIT);
    ring.write(Buffer.alloc(3 * LIMIT, "a"));
    ring.write(Buffer.from("b"));
    ring.close();
    expect((await read()).length).toBe(3 * LIMIT + 1);
  });

  test("goes on where another process of the same enclave stopped", async () => {
    writeFileSync(path, "old\n");
    const ring = new Ring(path, LIMIT);
    ring.write(Buffer.from("new\n"));
    ring.close();
    expect(await read()).toBe("old\nnew\n");
  });

  test("loses what it cannot write where its directory is gone, and says so", () => {
    const folder = mkdtempSync(join(root, "gone-"));
    const ring = new Ring(join(folder, "log"), LIMIT);
    rmSync(folder, { recursive: true });
    const kept = Array.from({ length: 1000 }, (_, index) => ring.write(line(index)));
    expect([kept[0], kept.at(-1)]).toEqual([true, false]);
    ring.close();
  });
});

describe("a follower", () => {
  test("that keeps up misses nothing over many changes of files", async () => {
    const ring = new Ring(path, LIMIT);
    const over = new AbortController();
    const chunks: Buffer[] = [];
    let seen = 0;
    const done = (async () => {
      for await (const chunk of followRing(path, over.signal)) {
        chunks.push(chunk);
        seen += chunk.length;
      }
    })();
    const count = 5000;
    for (let index = 0; index < count; index++) {
      ring.write(line(index));
      // It reads before a second change of files.
      if (index % 200 === 199)
        await expect.poll(() => seen, { timeout: 30_000, interval: 1 }).toBe((index + 1) * 8);
    }
    over.abort();
    await done;
    ring.close();
    expect(Buffer.concat(chunks).toString()).toBe(
      Array.from({ length: count }, (_, index) => line(index).toString()).join(""),
    );
  });

  test("that was left behind goes on with the oldest that is there", async () => {
    const ring = new Ring(path, LIMIT);
    const over = new AbortController();
    const follower = followRing(path, over.signal);
    ring.write(line(0));
    expect(String((await follower.next()).value)).toBe("0000000\n");
    for (let index = 1; index < 2000; index++) ring.write(line(index));
    over.abort();
    let rest = "";
    for await (const chunk of follower) rest += chunk;
    ring.close();
    const lines = rest.trimEnd().split("\n").map(Number);
    expect(lines.at(-1)).toBe(1999);
    // What was in the file that it had open comes too.
    const gaps = lines.filter((value, index) => index > 0 && value !== (lines[index - 1] ?? 0) + 1);
    expect(gaps.length).toBe(1);
  });

  test("of nothing ends when it is over", async () => {
    const over = new AbortController();
    const reading = read(over.signal);
    over.abort();
    expect(await reading).toBe("");
  });
});

describe.runIf(process.getuid?.() === 0)("a full disk", () => {
  const mount = mkdtempSync(join(root, "mount-"));
  const identity = { pid: process.pid, startTime: "1", bootId: "b" };
  const fields = { eif: "/app.eif", emulated: true, debug: false };
  beforeEach(() => {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k,mode=700", "none", mount]);
  });
  afterEach(() => {
    execFileSync("umount", ["--lazy", mount]);
  });

  test("refuses a claim by its own error, and leaves nothing", () => {
    const registry = new Registry(mount);
    expect(registry.list()).toEqual([]);
    writeFileSync(join(mount, "ballast"), Buffer.alloc(64 << 10));
    const claim = () => registry.claim({ name: "app", isDefault: true }, identity, fields);
    expect(claim).toThrow(/got ENOSPC, expected to write there/);
    rmSync(join(mount, "ballast"));
    expect(registry.list()).toEqual([]);
  });

  test("costs log records, which are counted, and not how it ended", async () => {
    const shelf = new Shelf(new Registry(mount).claim({ name: "app", isDefault: true }, identity, fields));
    const text = "x".repeat(1000);
    const say = () => shelf.log({ type: "log", time: 1, source: "stdout", level: "info", text, dropped: 0 });
    for (let index = 0; index < 200; index++) say();
    shelf.update({ state: "ended", end: { at: 1, report: { kind: "terminated" } } });
    expect(JSON.parse(readFileSync(join(mount, "app/state.json"), "utf8")).state).toBe("ended");
    say();
    shelf[Symbol.dispose]();
    path = join(mount, "app/log");
    const [lost, last] = (await read())
      .trimEnd()
      .split("\n")
      .map((record) => JSON.parse(record));
    expect(lost).toMatchObject({ type: "lost", events: expect.any(Number) });
    expect(lost.events).toBeGreaterThan(100);
    expect(last).toMatchObject({ type: "log" });
  });
});
