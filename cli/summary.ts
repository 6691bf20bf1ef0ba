/** An enclave as JSON: nitro-cli's keys in its order, then ours. Source: nitro-cli `src/common/json_output.rs`. */
import type { HealthReport } from "../launcher/health.ts";
import type { EnclaveEnd, EnclaveRecord } from "../launcher/record.ts";

/** nitro-cli's states; it has none for an enclave that ended. */
const STATES = {
  starting: "EMPTY",
  restarting: "EMPTY",
  running: "RUNNING",
  stopping: "TERMINATING",
  ended: "ENDED",
} as const;

/** run-enclave's. */
export function runJson(record: EnclaveRecord): object {
  return { ...common(record), Published: publishedJson(record), ...probesJson(record) };
}

/** describe-enclaves', less the measurements. */
export function describeJson(record: EnclaveRecord): object {
  return { ...common(record), State: STATES[record.state], Flags: record.debug ? "DEBUG_MODE" : "NONE" };
}

/** What only we know. */
export function ownJson(record: EnclaveRecord): object {
  return {
    Published: publishedJson(record),
    ...probesJson(record),
    Eif: record.eif,
    Emulated: record.emulated,
    CreatedAt: new Date(record.createdAt).toISOString(),
    Restarts: record.restarts,
    ...(record.end !== undefined && { End: endJson(record.end) }),
  };
}

export function endJson(end: EnclaveEnd): object {
  const about = { At: new Date(end.at).toISOString(), ...(end.by !== undefined && { By: end.by }) };
  if ("error" in end) {
    const { code, message, details } = end.error;
    return {
      ...about,
      Kind: "error",
      Code: code,
      Message: message,
      ...(details !== undefined && { Details: details }),
    };
  }
  const { report } = end;
  switch (report.kind) {
    case "app":
      return {
        ...about,
        Kind: "app",
        Status: report.status,
        Reason: report.reason,
        LastWords: report.lastWords,
      };
    case "crash":
      return { ...about, Kind: "crash", Console: report.console };
    case "terminated":
      return { ...about, Kind: "terminated" };
  }
}

/** terminate-enclave's. */
export function terminatedJson({ name, id }: EnclaveRecord): object {
  return { EnclaveName: name, EnclaveID: id ?? "", Terminated: true };
}

function common({ name, id, supervisor, cid, cpuIds = [], memoryMiB }: EnclaveRecord): object {
  return {
    EnclaveName: name,
    EnclaveID: id ?? "",
    ProcessID: supervisor.pid,
    EnclaveCID: cid ?? 0,
    NumberOfCPUs: cpuIds.length,
    CPUIDs: cpuIds,
    MemoryMiB: memoryMiB ?? 0,
  };
}

function publishedJson({ published = [] }: EnclaveRecord): object[] {
  return published.map(({ address, port, vsockPort }) => ({
    Address: address,
    Port: port,
    VsockPort: vsockPort,
  }));
}

/** Where probes are answered, if it was ordered. */
function probesJson({ health }: EnclaveRecord): object {
  return health === undefined ? {} : { Health: { Address: health.address, Port: health.port } };
}

/** How it does, as far as its supervisor says. */
export function healthJson(report: HealthReport | undefined): object {
  if (report === undefined) return {};
  const { condition, forMs, alive, ready, stats, statsAgeMs } = report;
  const numbers = stats && Object.entries({ ageMs: statsAgeMs, ...stats });
  return {
    Ready: ready,
    Healthy: alive,
    Condition: condition,
    ConditionForMs: forMs,
    ...(numbers && { Stats: Object.fromEntries(numbers.map(([key, value]) => [capitalized(key), value])) }),
  };
}

const capitalized = (key: string) => key.charAt(0).toUpperCase() + key.slice(1);
