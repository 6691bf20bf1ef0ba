/**
 * The control channel (enclave → CID_PARENT, PORT_CONTROL): one JSON object a line, UTF-8, each side bounded.
 * Either side ignores a type it does not know, so that releases can meet.
 */

/** Longest line either side accepts, bytes with the newline; a longer one ends the channel. */
export const CONTROL_LINE_MAX = 64 * 1024;
/** Longest text of one log record, bytes; a longer line of the app is cut into several records. */
export const LOG_TEXT_MAX = 16 * 1024;

export type BootPhase = "kernel" | "init" | "heartbeat" | "control" | "app" | "ready";

/** Why the app ended. `killed`: the shutdown deadline passed and init ended it. */
export type ExitReason = "return" | "exit" | "exception" | "rejection" | "signal" | "load" | "killed";

export type EnclaveMessage =
  | { readonly type: "hello"; readonly protocol: 1; readonly node: string; readonly name: string }
  /** `uptimeMs`: kernel time since boot, CLOCK_BOOTTIME. */
  | { readonly type: "phase"; readonly phase: BootPhase; readonly uptimeMs: number }
  | { readonly type: "ready"; readonly uptimeMs: number; readonly ports: readonly number[] }
  /** `time`: Unix milliseconds by the enclave's clock. `dropped`: records lost before this one. */
  | {
      readonly type: "log";
      readonly time: number;
      readonly source: "stdout" | "stderr" | "init";
      readonly text: string;
      readonly dropped?: number;
    }
  /** The app's end: last message of every enclave that did not crash. `lastWords`: last lines of stderr. */
  | {
      readonly type: "exit";
      readonly status: number;
      readonly reason: ExitReason;
      readonly lastWords: readonly string[];
    };

export type ParentMessage =
  /** Ask the app to stop: it sees SIGTERM, and is ended when `deadlineMs` have passed. */
  | { readonly type: "shutdown"; readonly deadlineMs: number }
  | { readonly type: "time"; readonly unixMs: number }
  /** The parent has the exit report; the enclave may reboot. */
  | { readonly type: "bye" };
