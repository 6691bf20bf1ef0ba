/**
 * Logs of one enclave, and how it does: levels, JSON, what is never shown, floods with a parent that reads and one that
 * does not, an event loop that stands still. The last test ends the enclave.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { PORT_CONTROL } from "../../format/abi.ts";
import type { VsockStream } from "../../launcher/index.ts";
import type { LogEvent } from "../../launcher/logs.ts";
import { type BuiltApp, buildApp, type Running, start } from "./enclave.ts";

// ---------------------------------------------------------------- guest half

const APP = `
import { createServer } from "node:http";
import { Worker } from "node:worker_threads";

const fill = "x".repeat(1000);
const CONNECTS = \`
  const { connect } = require("node:net");
  for (const host of ["10.1.1.1", "10.2.2.2"]) connect(7, host).on("error", () => {});
\`;

const routes: Record<string, (n: number) => unknown> = {
  "/say": () => {
    console.log("plain");
    console.error("wrong");
    console.log(JSON.stringify({ level: 40, msg: "nested", user: { Password: "hunter2", name: "ann" } }));
    console.log(JSON.stringify({ severity: "CRITICAL", token: "sk_12345" }));
    console.error("with sk_67890 inside");
    console.log(JSON.stringify({ big: "y".repeat(20_000), password: "hunter2" }));
    console.log("a".repeat(40) + "b");
    console.log("after");
  },
  "/flood": (n) => {
    const from = performance.now();
    let rss = 0;
    for (let i = 0; i < n; i++) {
      console.log("flood " + i + " " + fill);
      if (i % 10_000 === 0) rss = Math.max(rss, process.memoryUsage.rss());
    }
    return { ms: performance.now() - from, rss };
  },
  "/block": (ms) => {
    console.log("blocking");
    for (const end = Date.now() + ms; Date.now() < end; );
  },
  "/connects": async () => {
    new Function("require", CONNECTS)(process.getBuiltinModule.bind(process));
    await new Promise((done) => new Worker(CONNECTS, { eval: true }).on("exit", done));
  },
  "/report": () => [process.report.writeReport("/tmp/mine.json"), process.report.writeReport()],
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url ?? "/", "http://enclave");
  response.end(JSON.stringify((await routes[url.pathname]?.(Number(url.searchParams.get("n")))) ?? null));
});
server.listen(8080);
process.on("SIGTERM", () => console.log("asked to stop"));
`;

const REDACT = ["password", "/sk_\\d+/", "/^(a+)+$/"];

// ----------------------------------------------------------------- host half

/** A kilobyte each: ten times what the enclave keeps. */
const LINES = 10_000;
/** Patient with a machine that emulates several enclaves at once. */
const WAIT = { timeout: 60_000 };

let app: BuiltApp;
let running: Running;
let control: VsockStream | undefined;

beforeAll(async () => {
  app = await buildApp({ "app.ts": APP }, { redact: REDACT, egress: ["10.2.2.2:7"] });
  const onAccept = (port: number, stream: VsockStream) => {
    if (port === PORT_CONTROL) control = stream;
  };
  running = await start(app.eifPath, { onAccept });
  await running.enclave.ready;
});

afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  app?.remove();
});

const get = async (path: string) => (await (await fetch(`${running.url}${path}`)).json()) as never;
const records = () => running.events.filter((event): event is LogEvent => event.type === "log");
const stats = () => running.events.flatMap((event) => (event.type === "stats" ? [event.stats] : []));
const fromInit = () => records().flatMap(({ source, text }) => (source === "init" ? [text] : []));
const numbers = () =>
  records()
    .flatMap(({ text }) => /^flood (\d+) x+$/.exec(text)?.[1] ?? [])
    .map(Number);

test("records have a level, of their own where they are JSON; what redact names is in none", async () => {
  await get("/say");
  await expect.poll(() => running.logs(), WAIT).toContain("after");
  await expect.poll(() => running.logs(), WAIT).toContain("with [redacted] inside");
  const said = records().filter(({ source }) => source !== "init");
  const shown = said.map(({ source, level, text }) => [source, level, text]);
  expect(shown.filter(([source]) => source === "stdout")).toEqual([
    ["stdout", "info", "plain"],
    ["stdout", "warn", '{"level":40,"msg":"nested","user":{"Password":"[redacted]","name":"ann"}}'],
    ["stdout", "fatal", '{"severity":"CRITICAL","token":"[redacted]"}'],
    ["stdout", "info", expect.stringMatching(/^\[redacted: part of a line/)],
    ["stdout", "info", expect.stringMatching(/^\[redacted: part of a line/)],
    ["stdout", "info", expect.stringMatching(/^\[redacted: the patterns/)],
    ["stdout", "info", "after"],
  ]);
  expect(shown.filter(([source]) => source === "stderr")).toEqual([
    ["stderr", "error", "wrong"],
    ["stderr", "error", "with [redacted] inside"],
  ]);
});

test("the enclave says how it does when it is ready", async () => {
  await expect.poll(stats, WAIT).not.toEqual([]);
  const [first] = stats();
  const { memoryTotalBytes = 0, memoryAvailableBytes = 0, rssBytes = 0, heapUsedBytes = 0 } = first ?? {};
  expect(first).toMatchObject({ egressAllowed: 0, egressDenied: 0, logDropped: 0 });
  expect(heapUsedBytes).toBeGreaterThan(1e6);
  expect(rssBytes).toBeGreaterThan(heapUsedBytes);
  expect(memoryTotalBytes).toBeGreaterThan(memoryAvailableBytes);
  expect(memoryAvailableBytes).toBeGreaterThan(1e6);
  expect(first?.cpuMs).toBeGreaterThan(100);
  expect(first?.uptimeMs).toBeGreaterThan(100);
});

test("connections are counted over all threads", async () => {
  await get("/connects");
  await expect.poll(() => stats().at(-1), WAIT).toMatchObject({ egressAllowed: 2, egressDenied: 2 });
});

test("reports that the app asks for are files, and no end", async () => {
  expect(await get("/report")).toEqual([
    "/tmp/mine.json",
    expect.stringMatching(/^\/tmp\/report\.\d+\.json$/),
  ]);
});

/** Every line of a flood is there, in order, or counted. Other records may be among those that were dropped. */
function expectAll(lines: number, from: number): void {
  const seen = numbers();
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  expect(new Set(seen).size).toBe(seen.length);
  const since = records().slice(from);
  // On a machine that does much else, a line may have been withheld for want of time.
  const withheld = since.filter(({ text }) => text.startsWith("[redacted: the patterns")).length;
  const dropped = since.reduce((sum, record) => sum + record.dropped, 0);
  const missing = lines - seen.length - withheld;
  expect(missing).toBeLessThanOrEqual(dropped);
  expect(dropped - missing).toBeLessThan(10);
}

test("a flood to a parent that does not read: the app goes on in bounded memory, and the losses are counted", async () => {
  const from = records().length;
  control?.pause();
  const before = stats().at(-1);
  const { rss } = (await get(`/flood?n=${LINES}`)) as { rss: number };
  expect(numbers().length).toBeLessThan(LINES / 2);
  control?.resume();
  await expect.poll(() => numbers().at(-1), WAIT).toBe(LINES - 1);
  expectAll(LINES, from);
  expect(rss - (before?.rssBytes ?? 0)).toBeLessThan(100e6);
  await expect.poll(() => stats().at(-1)?.logDropped, WAIT).toBeGreaterThan(LINES / 2);
});

test("an app that blocks its event loop ships its logs, and is said to stand still and to go on", async () => {
  let isAnswered = false;
  const answer = get("/block?n=9000").finally(() => {
    isAnswered = true;
  });
  const { length } = running.events;
  await expect.poll(() => running.logs(), WAIT).toContain("blocking");
  await expect.poll(fromInit, WAIT).toContainEqual(expect.stringMatching(/has not turned for [2-9]\.\d s/));
  const isStalled = () =>
    running.events.slice(length).some((e) => e.type === "stats" && e.stats.stalledMs > 2000);
  await expect.poll(isStalled, WAIT).toBe(true);
  expect(isAnswered).toBe(false);
  await answer;
  await expect.poll(fromInit, WAIT).toContainEqual(expect.stringMatching(/turns again after \d+\.\d s/));
  await expect.poll(() => stats().at(-1)?.stalledMs, WAIT).toBe(0);
});

test("one that blocks it and writes for good is killed at the deadline, and no record was lost uncounted", async () => {
  const { length } = numbers();
  const unanswered = fetch(`${running.url}/flood?n=1e9`).catch(() => undefined);
  await expect.poll(() => numbers().length, WAIT).toBeGreaterThan(length);
  const report = await running.enclave.stop({ deadlineMs: 3_000 });
  expect(report).toMatchObject({ kind: "app", status: 137, reason: "killed" });
  await unanswered;
  const last = stats().at(-1);
  expect(last?.stalledMs).toBeGreaterThan(2_000);
  expect(records().reduce((sum, { dropped }) => sum + 1 + dropped, 0)).toBe(last?.logRecords);
  expect(records().reduce((sum, { dropped }) => sum + dropped, 0)).toBe(last?.logDropped);
});
