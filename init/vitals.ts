/** The numbers of format/stats.ts, read where the housekeeping thread finds them. */
import { freemem, totalmem } from "node:os";
import type { EnclaveStats } from "../format/stats.ts";
import { uptimeMs } from "../linux/clock.ts";
import type { Tally } from "../runtime/tally.ts";
import type { Pulse } from "./pulse.ts";
import type { RecordRing } from "./records.ts";

export interface VitalsOptions {
  readonly pulse: Pulse;
  readonly tally: Tally;
  readonly ring: Pick<RecordRing, "totals">;
  readonly clock: { readonly skewMs: number; readonly errorMs: number };
  /** How long the app's event loop has stood still; 0 while it turns. */
  readonly stalledMs: () => number;
}

/** Now; the delays are those since the last call. */
export function readVitals({ pulse, tally, ring, clock, stalledMs }: VitalsOptions): EnclaveStats {
  const { user, system } = process.cpuUsage();
  const { p50, p99, max, heapUsed } = pulse.take();
  const stalled = stalledMs();
  const { pushed, dropped } = ring.totals;
  return {
    uptimeMs: uptimeMs(),
    cpuMs: (user + system) / 1000,
    loopDelayP50Ms: p50,
    loopDelayP99Ms: p99,
    loopDelayMaxMs: Math.max(max, stalled),
    stalledMs: stalled,
    rssBytes: process.memoryUsage.rss(),
    heapUsedBytes: heapUsed,
    // libuv reads MemAvailable and MemTotal (uv_get_free_memory, uv_get_total_memory).
    memoryAvailableBytes: freemem(),
    memoryTotalBytes: totalmem(),
    egressAllowed: tally.allowed,
    egressDenied: tally.denied,
    logRecords: pushed,
    logDropped: dropped,
    clockSkewMs: clock.skewMs,
    clockErrorMs: clock.errorMs,
  };
}
