/** What a launch and its enclave tell whoever watches. */
import type { BootPhase, ExitReason } from "../format/control.ts";
import type { LogLevel, LogSource } from "../format/log.ts";
import type { EnclaveStats } from "../format/stats.ts";

/** Steps of a launch on the parent's side, in order. `started`: the hypervisor has it. */
export type LaunchStage = "memory" | "image" | "cpus" | "started" | "heartbeat";

export type EnclaveEvent =
  /** `elapsedMs` everywhere: since launch() was called. */
  | { readonly type: "stage"; readonly stage: LaunchStage; readonly elapsedMs: number }
  /** `uptimeMs`: since the enclave's kernel began. */
  | {
      readonly type: "phase";
      readonly phase: BootPhase;
      readonly uptimeMs: number;
      readonly elapsedMs: number;
    }
  | { readonly type: "ready"; readonly ports: readonly number[]; readonly elapsedMs: number }
  /**
   * A line of the app's output or of init's. `time`: Unix milliseconds by the enclave's clock. `level`: the line's own where
   * it is JSON, else by its source. The text is the enclave's: it may hold control characters.
   */
  | {
      readonly type: "log";
      readonly time: number;
      readonly source: LogSource;
      readonly level: LogLevel;
      readonly text: string;
      readonly dropped: number;
    }
  /** Every few seconds, in the enclave's own words. */
  | { readonly type: "stats"; readonly stats: EnclaveStats }
  /** The enclave broke the control protocol and its channel was closed; it runs on. */
  | { readonly type: "fault"; readonly reason: string }
  /** The parent's proxy refused the enclave a connection or a name. */
  | { readonly type: "egress"; readonly reason: string }
  /** A published port turned clients away: this process has no descriptors left for them. Once a minute at most. */
  | { readonly type: "publish"; readonly reason: string }
  | { readonly type: "exit"; readonly report: ExitReport };

export type ExitReport =
  /** The app ended and said so. `status`: 0 to 255. `lastWords`: last lines of its stderr. */
  | {
      readonly kind: "app";
      readonly status: number;
      readonly reason: ExitReason;
      readonly lastWords: readonly string[];
    }
  /** The enclave was gone without a word. `console`: its last output, where the device can show it. */
  | { readonly kind: "crash"; readonly console: string }
  /** We ended it: `terminate()`, a deadline that passed, an abort. */
  | { readonly kind: "terminated" };
