/**
 * The clock of a real machine: set by its honest parent, told lies later, and steered by the real kernel. (The lies of a
 * parent at boot: test/init/vm.test.ts; whole days: test/init/time/.)
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type BuiltApp, buildApp, ROOT, type Running, start } from "./enclave.ts";

// ---------------------------------------------------------------- guest half

const APP = `
import { rawMs, setClockRate, unixMs } from ${JSON.stringify(join(ROOT, "linux/clock.ts"))};

/** Both clocks at one moment: the pair that was read the quickest. */
function readPair() {
  const pairs = Array.from({ length: 50 }, () => ({ raw: rawMs(), unix: unixMs(), end: rawMs() }));
  return pairs.reduce((best, next) => (next.end - next.raw < best.end - best.raw ? next : best));
}

let least = Infinity;
let last = unixMs();
/** It never goes back, from the app's first line on. */
setInterval(() => {
  for (let i = 0; i < 1_000; i++) {
    const now = unixMs();
    least = Math.min(least, now - last);
    last = now;
  }
}, 20);

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/now") return Response.json({ now: Date.now(), least });
    setClockRate(Number(searchParams.get("ppm")));
    const from = readPair();
    while (rawMs() < from.raw + 400);
    const to = readPair();
    return Response.json(((to.unix - from.unix) / (to.raw - from.raw) - 1) * 1e6);
  },
};
`;

// ----------------------------------------------------------------- host half

let app: BuiltApp;
let running: Running;
/** What the parent's clock is off by, and how often it was asked. */
let lieMs = 0;
let asked = 0;

beforeAll(async () => {
  app = await buildApp({ "app.ts": APP }, { memory: "192M" });
  const now = () => {
    asked++;
    return Date.now() + lieMs;
  };
  running = await start(app.eifPath, { now });
  await running.enclave.ready;
});

afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  app?.remove();
});

const clockLines = () =>
  running.events.flatMap((event) =>
    event.type === "log" && event.text.startsWith("clock: ") ? event.text : [],
  );

/** How far the enclave's clock is ahead of ours at least and at most. */
async function skew(): Promise<readonly [least: number, most: number]> {
  const before = Date.now();
  const { now, least } = (await (await fetch(`${running.url}/now`)).json()) as { now: number; least: number };
  expect(least).toBeGreaterThanOrEqual(0);
  return [now - Date.now(), now + 1 - before];
}

/** Several looks: each knows it only to the request's duration, and all are true. */
async function skewBounds(): Promise<readonly [least: number, most: number]> {
  const looks: (readonly [number, number])[] = [];
  for (let look = 0; look < 10; look++) looks.push(await skew());
  return [Math.max(...looks.map(([least]) => least)), Math.min(...looks.map(([, most]) => most))];
}

test("an honest parent: the clock is right before the app runs, and the log says how", async () => {
  const [least, most] = await skewBounds();
  expect(least).toBeLessThan(50);
  expect(most).toBeGreaterThan(-50);
  expect(clockLines()).toEqual([expect.stringMatching(/^clock: (set by [+-]\d+ ms from|.* off by) parent/)]);
  expect(asked).toBeGreaterThanOrEqual(8);
});

test("the kernel runs its clock as fast as it is told", async () => {
  for (const ppm of [50_000, -50_000, 2_030]) {
    const measured = (await (await fetch(`${running.url}/rate?ppm=${ppm}`)).json()) as number;
    expect(measured).toBeGreaterThan(ppm - 500);
    expect(measured).toBeLessThan(ppm + 500);
  }
});

test("a parent that lies by an hour, ahead and then behind, is refused and moves nothing", async () => {
  const heardFrom = async (count: number) =>
    expect.poll(() => asked, { timeout: 100_000 }).toBeGreaterThanOrEqual(count);
  lieMs = 3_600_000;
  await heardFrom(asked + 1);
  lieMs = -3_600_000;
  await heardFrom(asked + 1);
  await expect
    .poll(clockLines, { timeout: 30_000 })
    .toContainEqual(expect.stringMatching(/^clock: parent's time refused: got [+-]3[56]\d{5} ms/));
  const [least, most] = await skewBounds();
  expect(least).toBeLessThan(1_000);
  expect(most).toBeGreaterThan(-1_000);
});
