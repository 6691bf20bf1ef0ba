/** The exposition that Prometheus gets: well formed whatever the enclave says, and complete. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { EnclaveStats } from "../../format/stats.ts";
import { Health } from "../../launcher/health.ts";
import { type MetricsSource, metricsText } from "../../launcher/metrics.ts";
import { newRecord } from "../../launcher/record.ts";
import type { Traffic } from "../../launcher/traffic.ts";
import { parseExposition, sampleOf } from "./exposition.ts";
import { STATS } from "./stats.ts";

const TRAFFIC: Traffic = { accepted: 7, open: 2, refused: 1, bytesIn: 1000, bytesOut: 2000 };

function source(changes: { name?: string; stats?: EnclaveStats; address?: string } = {}): MetricsSource {
  const { name = "app", stats = STATS, address = "127.0.0.1" } = changes;
  const fields = { eif: "/srv/app.eif", emulated: false, debug: false };
  const supervisor = { pid: 1, startTime: "1" } as never;
  const health = new Health(() => "running");
  health.observe({ type: "stage", stage: "memory", elapsedMs: 12 });
  health.observe({ type: "phase", phase: "kernel", uptimeMs: 300, elapsedMs: 900 });
  health.observe({ type: "ready", ports: [8080], elapsedMs: 1500 });
  health.observe({ type: "stats", stats });
  return {
    record: { ...newRecord(name, supervisor, fields), state: "running", id: "i-1-enc2", restarts: 3 },
    health: health.report(),
    boot: health.boot,
    traffic: {
      published: [
        { address, port: 80, vsockPort: 8080, ...TRAFFIC },
        { address, port: 81, vsockPort: 8080, ...TRAFFIC, open: 0 },
      ],
      egress: { ...TRAFFIC, refused: 5 },
    },
  };
}

test("has every number once, in base units", () => {
  const families = parseExposition(metricsText(source()));
  const value = (name: string, labels?: Record<string, string>) => sampleOf(families, name, labels);
  const port = { address: "127.0.0.1", port: "80", vsock_port: "8080" };
  expect(families.get("cloister_enclave_info")?.samples).toEqual([
    { labels: { name: "app", id: "i-1-enc2" }, value: 1 },
  ]);
  expect({
    up: value("cloister_enclave_up"),
    ready: value("cloister_enclave_ready"),
    restarts: value("cloister_enclave_restarts_total"),
    stage: value("cloister_launch_stage_seconds", { stage: "memory" }),
    phase: value("cloister_boot_phase_seconds", { phase: "kernel" }),
    readyAfter: value("cloister_launch_ready_seconds"),
    accepted: value("cloister_published_connections_accepted_total", port),
    open: value("cloister_published_connections_open", port),
    openElsewhere: value("cloister_published_connections_open", { ...port, port: "81" }),
    refused: value("cloister_published_connections_refused_total", port),
    received: value("cloister_published_received_bytes_total", port),
    sent: value("cloister_published_sent_bytes_total", port),
    opened: value("cloister_egress_connections_opened_total"),
    denied: value("cloister_egress_refused_total"),
  }).toEqual({
    up: 1,
    ready: 1,
    restarts: 3,
    stage: 0.012,
    phase: 0.3,
    readyAfter: 1.5,
    accepted: 7,
    open: 2,
    openElsewhere: 0,
    refused: 1,
    received: 1000,
    sent: 2000,
    opened: 7,
    denied: 5,
  });
});

test("tells what the enclave said of itself, milliseconds as seconds", () => {
  const families = parseExposition(metricsText(source()));
  const told = [...families].flatMap(([name, { samples }]): [string, number][] => {
    const [, field] = /^cloister_enclave_(.*)$/.exec(name) ?? [];
    return field === undefined ? [] : [[field, samples[0]?.value ?? Number.NaN]];
  });
  expect(Object.fromEntries(told)).toMatchObject({
    uptime_seconds: 90.5,
    cpu_seconds_total: 1.25,
    event_loop_delay_p50_seconds: 0.001,
    event_loop_delay_p99_seconds: 0.012,
    event_loop_delay_max_seconds: 0.05,
    event_loop_stalled_seconds: 0.25,
    resident_memory_bytes: 100,
    heap_used_bytes: 50,
    memory_available_bytes: 400,
    memory_total_bytes: 1000,
    egress_allowed_total: 3,
    egress_denied_total: 4,
    log_records_total: 5,
    log_records_dropped_total: 6,
    clock_skew_seconds: -0.002,
    clock_error_seconds: 0.003,
  });
});

test("without an enclave there are no numbers of one", () => {
  const health = new Health(() => "restarting");
  const { record } = source();
  const text = metricsText({
    record: { ...record, state: "restarting" },
    health: health.report(),
    boot: health.boot,
    traffic: undefined,
  });
  const families = parseExposition(text);
  expect([...families.keys()].filter((name) => !name.startsWith("cloister_launcher_"))).toEqual([
    "cloister_enclave_info",
    "cloister_enclave_up",
    "cloister_enclave_healthy",
    "cloister_enclave_ready",
    "cloister_enclave_restarts_total",
  ]);
  expect(sampleOf(families, "cloister_enclave_up")).toBe(0);
  expect(sampleOf(families, "cloister_enclave_restarts_total")).toBe(3);
});

const anyNumber = fc.double({ noNaN: true, noDefaultInfinity: true });

test("is well formed whatever the names and the enclave say", () => {
  const stats = fc.record(
    Object.fromEntries(Object.keys(STATS).map((key) => [key, anyNumber])),
  ) as unknown as fc.Arbitrary<EnclaveStats>;
  const hostile = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom('a"b', "a\\", "a\n# HELP x y", "}"),
  );
  fc.assert(
    fc.property(hostile, hostile, stats, (name, address, values) => {
      const families = parseExposition(metricsText(source({ name, address, stats: values })));
      const [info] = families.get("cloister_enclave_info")?.samples ?? [];
      const [open] = families.get("cloister_published_connections_open")?.samples ?? [];
      expect([info?.labels.name, open?.labels.address]).toEqual([
        name.toWellFormed(),
        address.toWellFormed(),
      ]);
    }),
  );
});

test.each([
  ["no line feed at the end", "# HELP a_b x\n# TYPE a_b gauge\na_b 1"],
  ["no HELP", "# TYPE a_b gauge\na_b 1\n"],
  ["no TYPE", "# HELP a_b x\na_b 1\n"],
  ["a metric twice", "# HELP a x\n# TYPE a gauge\na 1\n# HELP a x\n# TYPE a gauge\na 1\n"],
  ["labels twice", '# HELP a x\n# TYPE a gauge\na{b="1"} 1\na{b="1"} 2\n'],
  ["an open quote", '# HELP a x\n# TYPE a gauge\na{b="1} 1\n'],
  ["a bare quote", '# HELP a x\n# TYPE a gauge\na{b="1"2"} 1\n'],
  ["a counter without _total", "# HELP a x\n# TYPE a counter\na 1\n"],
  ["a gauge with it", "# HELP a_total x\n# TYPE a_total gauge\na_total 1\n"],
  ["milliseconds", "# HELP a_ms x\n# TYPE a_ms gauge\na_ms 1\n"],
  ["no number", "# HELP a x\n# TYPE a gauge\na undefined\n"],
  ["no sample", "# HELP a x\n# TYPE a gauge\n"],
])("the reader of these tests refuses %s", (_, text) => {
  expect(() => parseExposition(text)).toThrow(/line/);
});
