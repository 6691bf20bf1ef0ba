/** When an enclave that failed is started again, and how soon. */
import type { ExitReport } from "./event.ts";

export interface RestartPolicy {
  /** Most restarts of an app that never stays up; Infinity for no limit. */
  readonly max: number;
}

const FIRST_MS = 1000;
const LONGEST_MS = 60_000;
/** An enclave that was up this long had started well: the count begins again. */
export const HEALTHY_MS = 60_000;

/** Milliseconds before the next start; `failures` is 1 for the first. Doubles, up to a minute. */
export function backoffMs(failures: number): number {
  return Math.min(FIRST_MS * 2 ** (failures - 1), LONGEST_MS);
}

/** A crash, or a status other than 0. */
export function isFailure(report: ExitReport): boolean {
  return report.kind === "crash" || (report.kind === "app" && report.status !== 0);
}
