/** How an enclave does, as it tells its parent every few seconds. Its own word: nothing that the parent decides by. */
import type { JsonNode } from "./json.ts";

/**
 * Fields and their units. `sum`: since boot. `bytes` and `ms` (milliseconds, with fractions) are of now; `signed` too,
 * milliseconds on either side of zero. The delay of the app's event loop is of the time since the message before.
 */
const FIELDS = {
  uptimeMs: "ms",
  /** User and system time of all threads. */
  cpuMs: "ms",
  loopDelayP50Ms: "ms",
  loopDelayP99Ms: "ms",
  loopDelayMaxMs: "ms",
  /** How long the app's event loop has not turned; 0 while it does. */
  stalledMs: "ms",
  rssBytes: "bytes",
  heapUsedBytes: "bytes",
  /** MemAvailable and MemTotal of proc_meminfo(5). */
  memoryAvailableBytes: "bytes",
  memoryTotalBytes: "bytes",
  /** Connections that the measured list allowed; connections, names and datagrams that it refused. */
  egressAllowed: "sum",
  egressDenied: "sum",
  logRecords: "sum",
  logDropped: "sum",
  /** The enclave's clock less what its best source says, and how far off that may be at most. */
  clockSkewMs: "signed",
  clockErrorMs: "ms",
} as const;

export type EnclaveStats = Readonly<Record<keyof typeof FIELDS, number>>;

/** Throws E_CONTROL, naming the field. */
export function readStats(node: JsonNode): EnclaveStats {
  const read = ([name, unit]: [string, (typeof FIELDS)[keyof typeof FIELDS]]) => {
    const field = node.get(name);
    if (unit === "signed") return [name, field.number()];
    return [name, unit === "ms" ? field.milliseconds() : field.integer(0, Number.MAX_SAFE_INTEGER)];
  };
  return Object.fromEntries(Object.entries(FIELDS).map(read)) as EnclaveStats;
}
