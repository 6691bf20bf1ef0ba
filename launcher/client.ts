/** What other processes ask of a supervisor, and what they do about one that does not answer. */
import { setTimeout as sleep } from "node:timers/promises";
import type { EifDescription } from "../format/describe.ts";
import { CloisterError } from "../format/errors.ts";
import type { HealthReport } from "./health.ts";
import { isAlive } from "./identity.ts";
import type { EnclaveEnd, EnclaveRecord } from "./record.ts";
import { type Entry, type Registry, socketPath } from "./registry.ts";
import { ask, type ServiceRequest, SupervisorGone } from "./service.ts";

/** A supervisor makes its socket right after its claim, and ends right after it closed it. */
const RETRY_MS = 50;
/** What a supervisor may take to end its enclave at once, milliseconds. */
const TERMINATE_LIMIT_MS = 10_000;
/** After an app's deadline init reports, and the enclave reboots. */
const STOP_GRACE_MS = 20_000;
/** A supervisor answers of what it knows: in milliseconds, on a busy machine in tens. */
const HEALTH_LIMIT_MS = 1_000;

/** How it ended, or ends. Rejects with E_SUPERVISOR_DIED, or `signal`'s reason. */
export function awaitEnd(registry: Registry, entry: Entry, signal?: AbortSignal): Promise<EnclaveEnd> {
  return untilEnd(registry, entry, { verb: "wait" }, signal);
}

/** Ask the app to stop; it has `deadlineMs`. A supervisor that does not answer is killed. */
export async function stopEnclave(registry: Registry, entry: Entry, deadlineMs: number): Promise<EnclaveEnd> {
  const limit = AbortSignal.timeout(deadlineMs + STOP_GRACE_MS);
  return orKill(registry, entry, limit, { verb: "stop", deadlineMs });
}

/** End it now. A supervisor that does not answer is killed, and its enclave ends with it. */
export async function terminateEnclave(registry: Registry, entry: Entry): Promise<EnclaveEnd> {
  return orKill(registry, entry, AbortSignal.timeout(TERMINATE_LIMIT_MS), { verb: "terminate" });
}

/** What the image of a running enclave says, as it was when it was started. Rejects with E_SUPERVISOR_DIED. */
export async function describeEnclave(registry: Registry, entry: Entry): Promise<EifDescription> {
  for (;;) {
    try {
      return (await ask(socketPath(entry.folder), { verb: "describe" })) as EifDescription;
    } catch (error) {
      if (!(error instanceof SupervisorGone)) throw error;
      if (!isAlive(entry.record.supervisor)) throw died(registry, entry.record);
      await sleep(RETRY_MS);
    }
  }
}

/**
 * How it does. Undefined where nobody answers soon: it ended, its supervisor hangs or is of a release that does not know
 * the question.
 */
export async function askHealth({ folder, record }: Entry): Promise<HealthReport | undefined> {
  if (record.state === "ended") return undefined;
  try {
    const limit = AbortSignal.timeout(HEALTH_LIMIT_MS);
    return (await ask(socketPath(folder), { verb: "health" }, limit)) as HealthReport;
  } catch {
    return undefined;
  }
}

async function untilEnd(
  registry: Registry,
  { folder, record }: Entry,
  request: ServiceRequest,
  signal?: AbortSignal,
): Promise<EnclaveEnd> {
  for (;;) {
    const end = latest(registry, record)?.end;
    if (end !== undefined) return end;
    try {
      return (await ask(socketPath(folder), request, signal)) as EnclaveEnd;
    } catch (error) {
      if (!(error instanceof SupervisorGone)) throw error;
    }
    if (!isAlive(record.supervisor)) {
      // Its last act is the record.
      const last = latest(registry, record)?.end;
      if (last !== undefined) return last;
      throw died(registry, record);
    }
    await sleep(RETRY_MS, undefined, { ...(signal && { signal }) });
  }
}

/** The record as it is now; undefined once it was removed, or another enclave has the name. */
function latest(registry: Registry, { name, supervisor }: EnclaveRecord): EnclaveRecord | undefined {
  const record = registry.read(name);
  const isSame =
    record?.supervisor.pid === supervisor.pid && record.supervisor.startTime === supervisor.startTime;
  return isSame ? record : undefined;
}

function died(registry: Registry, { name, supervisor }: EnclaveRecord): CloisterError {
  registry.list();
  const message = `${name}: got no answer from its supervisor ${supervisor.pid}, which died; expected how it ended`;
  return new CloisterError("E_SUPERVISOR_DIED", message);
}

async function orKill(
  registry: Registry,
  entry: Entry,
  limit: AbortSignal,
  request: ServiceRequest,
): Promise<EnclaveEnd> {
  try {
    return await untilEnd(registry, entry, request, limit);
  } catch (error) {
    if (!limit.aborted) throw error;
  }
  const { supervisor } = entry.record;
  if (isAlive(supervisor)) process.kill(supervisor.pid, "SIGKILL");
  while (isAlive(supervisor)) await sleep(RETRY_MS);
  registry.list();
  return { at: Date.now(), by: "terminate", report: { kind: "terminated" } };
}
