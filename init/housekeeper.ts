/** The main thread's hold on the housekeeping thread. */
import { closeSync, openSync } from "node:fs";
import { Worker } from "node:worker_threads";
import type { EnclaveMessage, ExitReason } from "../format/control.ts";
import { closeDescriptor, makePipe, replaceDescriptor } from "../linux/descriptor.ts";
import { makeBlocking } from "../linux/stream.ts";
import { type HousekeepingData, type HousekeepingMessage, REPORT_DEADLINE_MS } from "./message.ts";

/** Where the packer puts the bundle of housekeeping.ts. */
const SCRIPT = "/lib/housekeeping.cjs";

export class Housekeeper {
  readonly #worker: Worker;
  readonly #reported = new Int32Array(new SharedArrayBuffer(4));

  /** Takes descriptors 0, 1 and 2. `onError`: the thread died, which it has no reason to. */
  constructor(
    options: Pick<HousekeepingData, "console" | "debug" | "hello">,
    onError: (error: unknown) => void,
  ) {
    const stdout = makePipe();
    const stderr = makePipe();
    const workerData: HousekeepingData = {
      ...options,
      stdout: stdout.readEnd,
      stderr: stderr.readEnd,
      reported: this.#reported,
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
