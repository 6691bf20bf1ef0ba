/** Which process a number means: pids are given again, so its start time and the boot it was in belong to it. */
import { readFileSync } from "node:fs";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
  readonly bootId: string;
}

/** Undefined where there is no such process, or only its exit status is left of it. */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = read(`/proc/${pid}/stat`);
  // The name is in parentheses and may hold anything; after it come state (3), then field 4 and on.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startTime = fields[18];
  if (startTime === undefined || state === "Z" || state === "X") return undefined;
  return { pid, startTime, bootId: read("/proc/sys/kernel/random/boot_id").trim() };
}

export function isAlive({ pid, startTime, bootId }: ProcessIdentity): boolean {
  const now = identify(pid);
  return now !== undefined && now.startTime === startTime && now.bootId === bootId;
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // ENOENT, ESRCH: it ended.
    return "";
  }
}
