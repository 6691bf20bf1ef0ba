/** What a supervisor knows of its enclave, for Prometheus. */
import type { EnclaveStats } from "../format/stats.ts";
import type { EnclaveTraffic } from "./enclave.ts";
import type { BootTimes, HealthReport } from "./health.ts";
import type { EnclaveRecord } from "./record.ts";
import type { Traffic } from "./traffic.ts";

/** Prometheus' text exposition format, version 0.0.4. */
export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export interface MetricsSource {
  readonly record: EnclaveRecord;
  readonly health: HealthReport;
  readonly boot: BootTimes;
  /** Undefined while no enclave runs. */
  readonly traffic: EnclaveTraffic | undefined;
}

type Labels = Readonly<Record<string, string>>;

interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly samples: readonly (readonly [labels: Labels, value: number])[];
}

type Row<T> = readonly [field: keyof T, name: string, type: Metric["type"], help: string];

/** In the enclave's own words; all of them begin again with the enclave. */
const STATS: readonly Row<EnclaveStats>[] = [
  ["uptimeMs", "uptime_seconds", "gauge", "Time since the enclave's kernel began."],
  ["cpuMs", "cpu_seconds_total", "counter", "CPU time of all threads of the app's process."],
  ["loopDelayP50Ms", "event_loop_delay_p50_seconds", "gauge", "Median delay of the app's event loop."],
  ["loopDelayP99Ms", "event_loop_delay_p99_seconds", "gauge", "99th percentile of that delay."],
  ["loopDelayMaxMs", "event_loop_delay_max_seconds", "gauge", "Largest of that delay."],
  ["stalledMs", "event_loop_stalled_seconds", "gauge", "How long the loop has not turned; 0 while it does."],
  ["rssBytes", "resident_memory_bytes", "gauge", "Resident memory of the app's process."],
  ["heapUsedBytes", "heap_used_bytes", "gauge", "JavaScript heap in use."],
  ["memoryAvailableBytes", "memory_available_bytes", "gauge", "Memory that the enclave can still give."],
  ["memoryTotalBytes", "memory_total_bytes", "gauge", "Memory that the enclave's kernel has."],
  ["egressAllowed", "egress_allowed_total", "counter", "Connections that the measured list allowed."],
  ["egressDenied", "egress_denied_total", "counter", "Connections, names and datagrams that it refused."],
  ["logRecords", "log_records_total", "counter", "Log records."],
  ["logDropped", "log_records_dropped_total", "counter", "Log records that found no room."],
  ["clockSkewMs", "clock_skew_seconds", "gauge", "The enclave's clock less what its best source says."],
  ["clockErrorMs", "clock_error_seconds", "gauge", "How far off that may be at most."],
];

/** Per published port. */
const PUBLISHED: readonly Row<Traffic>[] = [
  ["accepted", "connections_accepted_total", "counter", "Connections of clients."],
  ["open", "connections_open", "gauge", "Connections of clients that are open now."],
  [
    "refused",
    "connections_refused_total",
    "counter",
    "Connections that the enclave, or this machine, did not take.",
  ],
  ["bytesIn", "received_bytes_total", "counter", "Bytes from clients into the enclave."],
  ["bytesOut", "sent_bytes_total", "counter", "Bytes from the enclave to clients."],
];

/** Of the parent's proxy. */
const EGRESS: readonly Row<Traffic>[] = [
  ["accepted", "connections_opened_total", "counter", "Connections outward that stood."],
  ["open", "connections_open", "gauge", "Connections outward that are open now."],
  [
    "refused",
    "refused_total",
    "counter",
    "Connections and names that the parent refused, by its copy of the list or for want of room.",
  ],
  ["bytesIn", "received_bytes_total", "counter", "Bytes from servers into the enclave."],
  ["bytesOut", "sent_bytes_total", "counter", "Bytes from the enclave to servers."],
];

/** The exposition: every metric with its HELP and TYPE; one without a sample is left out. */
export function metricsText(source: MetricsSource): string {
  return [
    ...lifeMetrics(source),
    ...bootMetrics(source.boot),
    ...statsMetrics(source.health),
    ...trafficMetrics(source.traffic),
    ...launcherMetrics(),
  ]
    .filter(({ samples }) => samples.length > 0)
    .map(metricText)
    .join("");
}

function lifeMetrics({ record, health }: MetricsSource): Metric[] {
  const { name, id = "" } = record;
  const flag = (value: boolean) => (value ? 1 : 0);
  const isUp = record.state === "running" || record.state === "stopping";
  return [
    gauge("cloister_enclave_info", "Which enclave this is; always 1.", 1, { name, id }),
    gauge("cloister_enclave_up", "1 while an enclave runs.", flag(isUp)),
    gauge("cloister_enclave_healthy", "1 while /healthz says 200.", flag(health.alive)),
    gauge("cloister_enclave_ready", "1 while /readyz says 200.", flag(health.ready)),
    counter("cloister_enclave_restarts_total", "Starts after a failure.", record.restarts),
  ];
}

function bootMetrics({ stages, phases, readyMs }: BootTimes): Metric[] {
  return [
    {
      name: "cloister_launch_stage_seconds",
      type: "gauge",
      help: "Time from the launch to this stage of it, on the parent.",
      samples: [...stages].map(([stage, ms]) => [{ stage }, ms / 1000]),
    },
    {
      name: "cloister_boot_phase_seconds",
      type: "gauge",
      help: "Time from the kernel's begin to this phase of the boot, in the enclave.",
      samples: [...phases].map(([phase, ms]) => [{ phase }, ms / 1000]),
    },
    {
      name: "cloister_launch_ready_seconds",
      type: "gauge",
      help: "Time from the launch to a ready app.",
      samples: readyMs === undefined ? [] : [[{}, readyMs / 1000]],
    },
  ];
}

function statsMetrics({ stats, statsAgeMs }: HealthReport): Metric[] {
  if (stats === undefined || statsAgeMs === undefined) return [];
  return [
    gauge(
      "cloister_enclave_stats_age_seconds",
      "Time since the enclave told how it does.",
      statsAgeMs / 1000,
    ),
    ...rows("cloister_enclave_", STATS, [[{}, stats]]),
  ];
}

function trafficMetrics(traffic: EnclaveTraffic | undefined): Metric[] {
  if (traffic === undefined) return [];
  const { published, egress } = traffic;
  const ports = published.map((port): [Labels, Traffic] => [
    { address: port.address, port: String(port.port), vsock_port: String(port.vsockPort) },
    port,
  ]);
  return [
    ...rows("cloister_published_", PUBLISHED, ports),
    ...rows("cloister_egress_", EGRESS, egress === undefined ? [] : [[{}, egress]]),
  ];
}

/** One metric a row, one sample a source. Fields in milliseconds say so in their names. */
function rows<T>(
  prefix: string,
  table: readonly Row<T>[],
  sources: readonly (readonly [Labels, T])[],
): Metric[] {
  return table.map(([field, name, type, help]) => {
    const divisor = String(field).endsWith("Ms") ? 1000 : 1;
    return {
      name: `${prefix}${name}`,
      type,
      help,
      samples: sources.map(([labels, source]) => [labels, Number(source[field]) / divisor]),
    };
  });
}

function launcherMetrics(): Metric[] {
  const { user, system } = process.cpuUsage();
  const rss = process.memoryUsage.rss();
  return [
    counter("cloister_launcher_cpu_seconds_total", "CPU time of the launcher.", (user + system) / 1e6),
    gauge("cloister_launcher_resident_memory_bytes", "Resident memory of the launcher.", rss),
    gauge(
      "cloister_launcher_start_time_seconds",
      "When the launcher began, Unix time.",
      performance.timeOrigin / 1000,
    ),
  ];
}

function gauge(name: string, help: string, value: number, labels: Labels = {}): Metric {
  return { name, type: "gauge", help, samples: [[labels, value]] };
}

function counter(name: string, help: string, value: number): Metric {
  return { name, type: "counter", help, samples: [[{}, value]] };
}

function metricText({ name, type, help, samples }: Metric): string {
  const lines = samples.map(([labels, value]) => `${name}${labelsText(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function labelsText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/** Backslash, quote and line feed, as the format has them. */
function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
