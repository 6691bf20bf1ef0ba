import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { JsonNode } from "../../format/json.ts";
import { readStats } from "../../format/stats.ts";
import { Pulse } from "../../init/pulse.ts";
import { RecordRing } from "../../init/records.ts";
import { STALL_MS, StallWatch } from "../../init/stall.ts";
import { readVitals } from "../../init/vitals.ts";
import { uptimeMs } from "../../linux/clock.ts";
import { Tally } from "../../runtime/tally.ts";

function watch() {
  const said: string[] = [];
  return { said, it: new StallWatch((text, level) => said.push(`${level}: ${text}`)) };
}

test("a stall is said once, with how long, and once when it is over", () => {
  const { it, said } = watch();
  expect(it.check(10_000, 9_900)).toBe(0);
  expect(it.check(9_900 + STALL_MS - 1, 9_900)).toBe(0);
  expect(it.check(12_400, 9_900)).toBe(2_500);
  expect(it.check(19_900, 9_900)).toBe(10_000);
  expect(it.check(20_100, 20_000)).toBe(0);
  expect(it.check(20_600, 20_500)).toBe(0);
  expect(said).toEqual([
    "warn: the app's event loop has not turned for 2.5 s: something blocks it",
    "info: the app's event loop turns again after 10.1 s",
  ]);
});

test("one stall after another is two", () => {
  const { it, said } = watch();
  it.check(13_000, 10_000);
  it.check(20_000, 15_000);
  expect(said.map((text) => text.slice(0, 30))).toEqual([
    "warn: the app's event loop has",
    "info: the app's event loop tur",
    "warn: the app's event loop has",
  ]);
});

test("before its first beat nothing stands still", () => {
  const { it, said } = watch();
  expect(it.check(1e9, 0)).toBe(0);
  expect(said).toEqual([]);
});

test("a pulse beats, shows a delay once, and keeps no event loop alive", async () => {
  const pulse = new Pulse();
  expect(pulse.beatMs).toBe(0);
  const source = `
    const { workerData } = require("node:worker_threads");
    const block = (ms) => { for (const end = performance.now() + ms; performance.now() < end; ); };
    import(workerData.module).then(({ Pulse }) => {
      new Pulse(workerData.buffer).start();
      block(400);
      setTimeout(() => {}, 1500);
    });`;
  const module = new URL("../../init/pulse.ts", import.meta.url).href;
  const before = uptimeMs();
  const worker = new Worker(source, { eval: true, workerData: { module, buffer: pulse.buffer } });
  const ended = once(worker, "exit");
  await expect.poll(() => pulse.take().max, { timeout: 30_000, interval: 20 }).toBeGreaterThan(100);
  expect(pulse.beatMs).toBeGreaterThan(before);
  const { p50, heapUsed } = pulse.take();
  expect(p50).toBeLessThan(400);
  expect(heapUsed).toBeGreaterThan(1e6);
  await ended;
});

test("a delay that the reader looked into while it lasted is still there when it looks again", async () => {
  const pulse = new Pulse();
  const source = `
    const { parentPort, workerData } = require("node:worker_threads");
    const looked = new Int32Array(workerData.looked);
    import(workerData.module).then(({ Pulse }) => {
      new Pulse(workerData.buffer).start();
      setTimeout(() => {
        parentPort.postMessage("blocked");
        Atomics.wait(looked, 0, 0);
        for (const end = performance.now() + 400; performance.now() < end; );
        // Three beats later.
        setTimeout(() => parentPort.postMessage("free"), 800);
      }, 300);
    });`;
  const module = new URL("../../init/pulse.ts", import.meta.url).href;
  const looked = new Int32Array(new SharedArrayBuffer(4));
  const workerData = { module, buffer: pulse.buffer, looked: looked.buffer };
  const worker = new Worker(source, { eval: true, workerData });
  const ended = once(worker, "exit");
  await once(worker, "message");
  pulse.take();
  const free = once(worker, "message");
  Atomics.store(looked, 0, 1);
  Atomics.notify(looked, 0);
  await free;
  expect(pulse.take().max).toBeGreaterThan(100);
  await ended;
});

test("vitals are what the parent reads", () => {
  const ring = new RecordRing(10);
  for (const text of ["a", "b"]) ring.push({ type: "log", time: 1, source: "stdout", text });
  const tally = new Tally();
  tally.countAllowed();
  for (let i = 0; i < 3; i++) new Tally(tally.buffer).countDenied();
  const clock = { skewMs: -0.5, errorMs: 2 };
  const vitals = readVitals({ pulse: new Pulse(), tally, ring, clock, stalledMs: () => 2_500 });
  expect(vitals).toMatchObject({
    egressAllowed: 1,
    egressDenied: 3,
    logRecords: 2,
    logDropped: 1,
    clockSkewMs: -0.5,
    clockErrorMs: 2,
    stalledMs: 2_500,
    loopDelayMaxMs: 2_500,
  });
  const bytes = new TextEncoder().encode(JSON.stringify(vitals));
  expect(readStats(JsonNode.parse("E_CONTROL", "stats", bytes))).toEqual(vitals);
});
