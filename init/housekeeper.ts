/** The main thread's hold on the housekeeping thread. */
import { closeSync, openSync } from "node:fs";
import { Worker } from "node:worker_threads";
import type { EnclaveMessage, ExitReason } from "../format/control.ts";
import { closeDescriptor, makePipe, replaceDescriptor } from "../linux/descriptor.ts";
import { makeBlocking } from "../linux/stream.ts";
import { Tally } from "../runtime/tally.ts";
import { awaitGivingUp } from "./abort.ts";
import {
  CLOCK_DEADLINE_MS,
  type HousekeepingData,
  type HousekeepingMessage,
  REPORT_DEADLINE_MS,
} from "./message.ts";
import { Pulse } from "./pulse.ts";

/** Where the packer puts the bundle of housekeeping.ts. */
const SCRIPT = "/lib/housekeeping.cjs";

export class Housekeeper {
  readonly #worker: Worker;
  readonly #reported = new Int32Array(new SharedArrayBuffer(4));
  readonly #pulse = new Pulse();
  readonly #clockIsSet = new Int32Array(new SharedArrayBuffer(4));

  /** Takes descriptors 0, 1 and 2. `onError`: the thread died, which it has no reason to. */
  constructor(
    options: Pick<HousekeepingData, "console" | "debug" | "hello" | "redact">,
    onError: (error: unknown) => void,
  ) {
    const stdout = makePipe();
    const stderr = makePipe();
    const tally = new Tally();
    tally.share();
    const workerData: HousekeepingData = {
      ...options,
      stdout: stdout.readEnd,
      stderr: stderr.readEnd,
      pulse: this.#pulse.buffer,
      tally: tally.buffer,
      givingUp: awaitGivingUp(),
      reported: this.#reported,
      clockIsSet: this.#clockIsSet,
    };
    // Before the worker: to make one, Node opens process.stdout, which must not take the console for the app's terminal.
    replaceStandardDescriptors(stdout.writeEnd, stderr.writeEnd);
    this.#worker = new Worker(SCRIPT, { workerData, name: "housekeeping" });
    this.#worker.on("error", onError);
    // The app's end is when its own work ends.
    this.#worker.unref();
  }

  tell(message: EnclaveMessage): void {
    this.#post({ type: "tell", message });
  }

  say(text: string): void {
    this.#post({ type: "say", text });
  }

  /** Wait until the clock is set, so that the app never sees it go back. Blocks the thread. */
  awaitClock(): void {
    Atomics.wait(this.#clockIsSet, 0, 0, CLOCK_DEADLINE_MS);
  }

  /** The app begins: from here on its event loop is watched. */
  watchApp(): void {
    this.#pulse.start();
  }

  /** Report the end and wait until the parent has it, there is none, or the deadline passed. Blocks the thread. */
  report(status: number, reason: ExitReason): void {
    this.#post({ type: "end", status, reason });
    Atomics.wait(this.#reported, 0, 0, REPORT_DEADLINE_MS * 2);
  }

  #post(message: HousekeepingMessage): void {
    this.#worker.postMessage(message);
  }
}

function replaceStandardDescriptors(stdout: number, stderr: number): void {
  const nothing = openSync("/dev/null", "r");
  replaceDescriptor(nothing, 0);
  replaceDescriptor(stdout, 1);
  replaceDescriptor(stderr, 2);
  closeSync(nothing);
  closeDescriptor(stdout);
  closeDescriptor(stderr);
  // Node queues what a full pipe does not take, and loses it in process.exit(). The housekeeping thread always reads.
  makeBlocking(process.stdout);
  makeBlocking(process.stderr);
}
