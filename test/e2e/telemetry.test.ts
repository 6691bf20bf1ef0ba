/**
 * How an enclave does, as its users see it: one VM started by the command, an app that says itself when it is ready, probes
 * and metrics on the parent, `ps`, and OpenTelemetry by its standard variables.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp, type ServerResponse } from "node:http";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { main } from "../../cli/main.ts";
import { build } from "../../packer/index.ts";
import { parseExposition, sampleOf } from "../launcher/exposition.ts";
import { CACHE, ROOT } from "./enclave.ts";

const LIMIT_MS = 240_000;
const directory = mkdtempSync(join(tmpdir(), "cloister-telemetry-"));
const eif = join(directory, "telemetry.eif");
const run = join(directory, "run");
const env = { ...process.env, CLOISTER_RUN_DIR: run };

// ---------------------------------------------------------------- host half: gate, collector, launcher

const servers: Server[] = [];
/** The app's request at its gate. */
const atGate = Promise.withResolvers<ServerResponse>();
const exported: { readonly path: string; readonly body: string }[] = [];
let launcher: ChildProcess;
let story = "";
let url: string;
let probes: string;

async function listen(server: Server): Promise<string> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

beforeAll(async () => {
  const gate = await listen(createHttp((_, response) => atGate.resolve(response)));
  const collector = await listen(
    createHttp(async (request, response) => {
      exported.push({ path: request.url ?? "", body: await text(request) });
      response.setHeader("content-type", "application/json").end("{}");
    }),
  );
  await build({
    directory: join(ROOT, "test/e2e/telemetry"),
    entry: "app.mjs",
    overrides: {
      ports: [8080],
      ready: "app",
      memory: "512M",
      egress: ["gate.test:80", "collector.test:4318"],
      env: {
        OTEL_SERVICE_NAME: "telemetry",
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector.test:4318",
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_BSP_SCHEDULE_DELAY: "100",
        OTEL_METRICS_EXPORTER: "none",
        OTEL_LOGS_EXPORTER: "none",
      },
    },
    output: eif,
    cacheDirectory: CACHE,
  });
  const local = [`gate.test:80=${gate}`, `collector.test:4318=${collector}`];
  const words = [
    ...["run", eif, "--emulator", "--verbose", "-p", "0:8080", "--health-port", "0"],
    ...local.flatMap((word) => ["--allow-local", word]),
  ];
  launcher = spawn(process.execPath, [join(ROOT, "cli/entry.ts"), ...words], {
    stdio: ["ignore", "pipe", "pipe"],
    env,
  });
  launcher.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    story += chunk;
  });
  const summary = JSON.parse(await firstObject(launcher)) as {
    readonly Published: readonly { readonly Port: number }[];
    readonly Health: { readonly Address: string; readonly Port: number };
  };
  url = `http://127.0.0.1:${summary.Published[0]?.Port}`;
  probes = `http://${summary.Health.Address}:${summary.Health.Port}`;
}, LIMIT_MS);

/** What the launcher prints once the enclave's heartbeat came. */
async function firstObject(child: ChildProcess): Promise<string> {
  let printed = "";
  for await (const chunk of child.stdout ?? []) {
    printed += chunk;
    if (printed.endsWith("}\n")) return printed;
  }
  throw new Error(`the launcher ended: ${story}`);
}

afterAll(async () => {
  if (launcher?.exitCode === null) {
    launcher.kill("SIGTERM");
    await once(launcher, "exit");
  }
  for (const server of servers) server.close();
  rmSync(directory, { recursive: true, force: true });
}, LIMIT_MS);

afterEach(({ task }) => {
  if (task.result?.state === "fail") console.error(story);
});

async function probe(path: string): Promise<[number, string]> {
  const response = await fetch(probes + path);
  return [response.status, await response.text()];
}

const metrics = async () => parseExposition((await probe("/metrics"))[1]);

async function cloister(...words: string[]): Promise<string> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  await main(words, { stdout, stderr, env, directory, signal: new AbortController().signal });
  stdout.end();
  return await text(stdout);
}

const list = async () => JSON.parse(await cloister("ps", "--json")) as Record<string, unknown>[];

// ---------------------------------------------------------------- one life

test("listens, and is not ready before it says so", { timeout: LIMIT_MS }, async () => {
  const response = await atGate.promise;
  expect([await probe("/healthz"), await probe("/readyz")]).toEqual([
    [200, "booting\n"],
    [503, "booting\n"],
  ]);
  expect(await cloister("ps")).toMatch(/telemetry .* running, not ready\n$/);
  expect(await list()).toMatchObject([
    { EnclaveName: "telemetry", State: "RUNNING", Ready: false, Healthy: true },
  ]);
  // It waits for the enclave, as any client that came too early.
  const early = fetch(`${url}/early`);
  expect(sampleOf(await metrics(), "cloister_enclave_ready")).toBe(0);
  response.end();
  expect(await (await early).text()).toBe("served\n");
  expect(await probe("/readyz")).toEqual([200, "ready\n"]);
  expect(await cloister("ps")).toMatch(/telemetry .* running\n$/);
  expect(story.match(/ready after/g)).toHaveLength(1);
});

test("its spans reach a collector named by OpenTelemetry's own variables", {
  timeout: LIMIT_MS,
}, async () => {
  await expect
    .poll(() => exported.map(({ body }) => body).join(), { timeout: 60_000 })
    .toContain("GET /early");
  const [{ path, body } = { path: "", body: "{}" }] = exported;
  expect(path).toBe("/v1/traces");
  const { resourceSpans } = JSON.parse(body);
  expect(resourceSpans[0].resource.attributes).toContainEqual({
    key: "service.name",
    value: { stringValue: "telemetry" },
  });
});

test("its numbers are metrics, and in ps and describe", { timeout: LIMIT_MS }, async () => {
  await expect
    .poll(async () => (await metrics()).has("cloister_enclave_heap_used_bytes"), { timeout: 60_000 })
    .toBe(true);
  const families = await metrics();
  const value = (name: string, labels = {}) => sampleOf(families, `cloister_${name}`, labels) ?? Number.NaN;
  expect(value("enclave_up")).toBe(1);
  const phases = ["kernel", "init", "heartbeat", "app", "ready"].map((phase) =>
    phase === "ready" ? value("launch_ready_seconds") : value("boot_phase_seconds", { phase }),
  );
  expect(phases.slice(0, -1)).toEqual(phases.slice(0, -1).toSorted((a, b) => a - b));
  expect(phases.every((seconds) => seconds > 0 && seconds < 240)).toBe(true);
  expect(value("published_connections_accepted_total", { vsock_port: "8080" })).toBeGreaterThanOrEqual(1);
  expect(value("published_sent_bytes_total", { vsock_port: "8080" })).toBeGreaterThan(7);
  expect(value("egress_connections_opened_total")).toBeGreaterThanOrEqual(2);
  expect(value("egress_sent_bytes_total")).toBeGreaterThan(exported[0]?.body.length ?? 0);
  expect(value("enclave_egress_denied_total")).toBeGreaterThanOrEqual(1);
  expect(value("enclave_memory_total_bytes")).toBeGreaterThan(256 << 20);
  expect(value("enclave_memory_total_bytes")).toBeLessThan(512 << 20);
  expect(value("enclave_resident_memory_bytes")).toBeGreaterThan(20 << 20);
  expect(value("enclave_cpu_seconds_total")).toBeGreaterThan(0);
  const stats = { HeapUsedBytes: expect.any(Number), AgeMs: expect.any(Number) };
  expect(await list()).toMatchObject([{ Ready: true, Condition: "ready", Stats: stats }]);
  expect(JSON.parse(await cloister("describe", "--enclave", "telemetry", "--json"))).toMatchObject({
    Health: { Address: "127.0.0.1" },
    Stats: stats,
  });
});

test("an app that blocks its event loop is stalled, and comes back", { timeout: LIMIT_MS }, async () => {
  const blocked = fetch(`${url}/blocks?block=15000`);
  await expect
    .poll(() => probe("/readyz"), { timeout: 60_000 })
    .toEqual([503, expect.stringMatching(/^stalled for \d+ s\n$/)]);
  expect((await probe("/healthz"))[0]).toBe(200);
  expect(sampleOf(await metrics(), "cloister_enclave_event_loop_stalled_seconds")).toBeGreaterThanOrEqual(5);
  expect(await cloister("ps")).toMatch(/telemetry .* stalled \d+s\n$/);
  expect(await (await blocked).text()).toBe("served\n");
  await expect.poll(() => probe("/readyz"), { timeout: 60_000 }).toEqual([200, "ready\n"]);
  expect(sampleOf(await metrics(), "cloister_enclave_event_loop_stalled_seconds")).toBe(0);
});

test("one that is asked to stop is not ready, and its end closes the port", {
  timeout: LIMIT_MS,
}, async () => {
  const ended = once(launcher, "exit");
  launcher.kill("SIGTERM");
  await ended;
  await expect(fetch(`${probes}/healthz`)).rejects.toThrow("fetch failed");
});
