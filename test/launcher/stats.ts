import type { EnclaveStats } from "../../format/stats.ts";

/** An enclave that does well: each field another number. */
export const STATS: EnclaveStats = {
  uptimeMs: 90_500,
  cpuMs: 1_250,
  loopDelayP50Ms: 1,
  loopDelayP99Ms: 12,
  loopDelayMaxMs: 50,
  stalledMs: 250,
  rssBytes: 100,
  heapUsedBytes: 50,
  memoryAvailableBytes: 400,
  memoryTotalBytes: 1000,
  egressAllowed: 3,
  egressDenied: 4,
  logRecords: 5,
  logDropped: 6,
  clockSkewMs: -2,
  clockErrorMs: 3,
};
