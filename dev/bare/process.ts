/** The process that runs in place of an enclave, and what a parent hears of it. */
import type { ChildProcess } from "node:child_process";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { type EnclaveMessage, MessageDecoder, readEnclaveMessage } from "../../format/control.ts";
import { CloisterError } from "../../format/errors.ts";
import { Journal } from "../../init/journal.ts";
import { type LogRecord, RecordRing } from "../../init/records.ts";
import type { ExitReport } from "../../launcher/event.ts";
import { TELLS } from "./order.ts";
import { killGroup, type Standby } from "./standby.ts";

/** What an ended process said last may still be on its way, milliseconds. A child of its own may keep the pipes open. */
const DRAIN_LIMIT_MS = 1_000;
/** 128 + SIGKILL, 128 + SIGABRT, as a shell reports them. */
const STATUS_KILLED = 137;
const STATUS_ABORTED = 134;
/** Of one record at a time: each is told at once. */
const RING_BYTES = 2 ** 20;

export interface BareProcessOptions {
  /** Its app lies in its folder. */
  readonly standby: Standby;
  /** HOST:PORT for Node's inspector. */
  readonly inspect: string | undefined;
  /** Rules of format/redact.ts. */
  readonly redact: readonly string[];
  readonly onLog: (record: LogRecord) => void;
  readonly onMessage: (message: EnclaveMessage) => void;
  /** It broke the protocol. */
  readonly onFault: (reason: string) => void;
}

export class BareProcess {
  /** How it ended. Never rejects. */
  readonly exited: Promise<ExitReport>;
  readonly #options: BareProcessOptions;
  readonly #standby: Standby;
  readonly #child: ChildProcess;
  readonly #journal: Journal;
  #report: ExitReport | undefined;

  constructor(options: BareProcessOptions) {
    this.#options = options;
    const ring = new RecordRing(RING_BYTES);
    const onLine = () => {
      const record = ring.shift();
      if (record !== undefined) options.onLog(record);
    };
    this.#journal = new Journal({ ring, redact: options.redact, onLine });
    this.#standby = options.standby;
    this.#child = options.standby.child;
    for (const source of ["stdout", "stderr"] as const) this.#follow(source);
    this.#hear();
    this.exited = this.#watch();
    const { standby, inspect } = options;
    standby.begin(inspect === undefined ? {} : { inspect });
  }

  /** Undefined where it could not be started. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Ask the app to stop, and kill it after the deadline. */
  stop(deadlineMs: number): void {
    this.#child.kill("SIGTERM");
    const kill = () => {
      this.#journal.say("the app did not end before the shutdown deadline", "error");
      this.#end({ kind: "app", status: STATUS_KILLED, reason: "killed", lastWords: this.#lastWords });
    };
    const timer = setTimeout(kill, deadlineMs);
    void this.exited.then(() => clearTimeout(timer));
  }

  /** As a power cut. */
  terminate(): void {
    this.#end({ kind: "terminated" });
  }

  #end(report: ExitReport): void {
    if (!this.#standby.isAlive) return;
    this.#report ??= report;
    killGroup(this.#child);
  }

  get #lastWords(): readonly string[] {
    return this.#journal.lastWords.lines();
  }

  #follow(source: "stdout" | "stderr"): void {
    const output = this.#journal.output(source);
    const stream = this.#child[source] as Readable;
    stream.on("data", (chunk: Buffer) => output.push(chunk)).on("end", () => output.end());
  }

  #hear(): void {
    const { onMessage, onFault } = this.#options;
    const stream = this.#child.stdio[TELLS] as Readable;
    const decoder = new MessageDecoder(readEnclaveMessage, (message) => {
      if (message.type === "log") this.#journal.say(message.text);
      else if (message.type !== "exit") onMessage(message);
      else {
        const { status, reason } = message;
        this.#report ??= { kind: "app", status, reason, lastWords: [] };
      }
    });
    stream.on("data", (chunk: Buffer) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        if (!(error instanceof CloisterError)) throw error;
        stream.destroy();
        onFault(error.message);
      }
    });
  }

  async #watch(): Promise<ExitReport> {
    const { exited, closed } = this.#standby;
    try {
      await exited;
    } catch (error) {
      return { kind: "crash", console: (error as Error).message };
    }
    // The app's own processes end with it, as in an enclave.
    killGroup(this.#child);
    await Promise.race([closed, sleep(DRAIN_LIMIT_MS, undefined, { ref: false })]);
    const report = this.#report ?? this.#crash();
    return report.kind === "app" ? { ...report, lastWords: this.#lastWords } : report;
  }

  /** It was gone without a word. */
  #crash(): ExitReport {
    const { exitCode, signalCode } = this.#child;
    if (signalCode === "SIGABRT")
      return { kind: "app", status: STATUS_ABORTED, reason: "abort", lastWords: [] };
    const end = signalCode === null ? `status ${exitCode}` : signalCode;
    return { kind: "crash", console: [...this.#lastWords, `the process ended: ${end}`].join("\n") };
  }
}
