/** What PID 1's main thread and its housekeeping thread say to each other. */
import type { EnclaveMessage, ExitReason } from "../format/control.ts";

/** Passed when the thread starts. */
export interface HousekeepingData {
  /** Read ends of the pipes behind descriptors 1 and 2. */
  readonly stdout: number;
  readonly stderr: number;
  readonly console: number;
  /** What the parent hears first. */
  readonly hello: EnclaveMessage;
  readonly debug: boolean;
  /** Rules of the measured configuration. */
  readonly redact: readonly string[];
  /** Memory of a Pulse and of a Tally. */
  readonly pulse: SharedArrayBuffer;
  readonly tally: SharedArrayBuffer;
  /** Descriptor of abort.ts. */
  readonly givingUp: number;
  /** One i32: 1 once the end has been reported. The main thread waits for it. */
  readonly reported: Int32Array<SharedArrayBuffer>;
  /** One i32: 1 once the clock has been set. */
  readonly clockIsSet: Int32Array<SharedArrayBuffer>;
}

export type HousekeepingMessage =
  /** Tell the parent. */
  | { readonly type: "tell"; readonly message: EnclaveMessage }
  /** A line of init's own for the log. */
  | { readonly type: "say"; readonly text: string }
  /** The app ended: report it, then set `reported`. */
  | { readonly type: "end"; readonly status: number; readonly reason: ExitReason };

/** How long the end of the app waits for the parent's `bye`. */
export const REPORT_DEADLINE_MS = 4_000;
/** How long the app waits for the clock: as the driver of /dev/nsm for an answer, and a little for the parent's. */
export const CLOCK_DEADLINE_MS = 125_000;
