/** How an enclave ended, as a status and as words. */
import { CloisterError } from "../format/errors.ts";
import type { EnclaveEnd } from "../launcher/record.ts";
import { reviveError } from "../launcher/service.ts";

/** What shells report for a process that a SIGTERM ended: 128 + 15. */
const STATUS_TERMINATED = 143;

/** The app's own status. Throws E_ENCLAVE_CRASHED, or why it did not start again. */
export function exitStatus(name: string, end: EnclaveEnd): number {
  if ("error" in end) throw reviveError(end.error);
  switch (end.report.kind) {
    case "app":
      return end.report.status;
    case "terminated":
      return STATUS_TERMINATED;
    case "crash":
      throw new CloisterError("E_ENCLAVE_CRASHED", `${name}: the enclave ended without an exit report`, {
        details: end.report.console,
      });
  }
}

const BY = { stop: "stopped, ", terminate: "", shutdown: "parent shut down, " } as const;

/** One line, as `ps -a` has it. */
export function outcomeText(end: EnclaveEnd): string {
  const by = end.by === undefined ? "" : BY[end.by];
  if ("error" in end) return `${by}failed to start: ${end.error.code}`;
  const { report } = end;
  switch (report.kind) {
    case "app":
      return `${by}exit status ${report.status} (${report.reason})`;
    case "terminated":
      return `${by}terminated`;
    case "crash":
      return `${by}crashed`;
  }
}
