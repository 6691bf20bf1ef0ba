/** An enclave's log records as a stream of bounded memory, for who would rather pull than be called. */
import { Readable } from "node:stream";
import type { EnclaveEvent } from "./event.ts";

export type LogEvent = Extract<EnclaveEvent, { readonly type: "log" }>;

/** Records that wait for a slow reader; what comes on top is dropped, and counted in the next one. */
const WAITING_MAX = 1024;

export class LogStream extends Readable {
  #dropped = 0;

  constructor() {
    super({ objectMode: true, highWaterMark: WAITING_MAX, read: () => {} });
  }

  add(event: LogEvent): void {
    if (this.readableLength >= WAITING_MAX) {
      this.#dropped += 1 + event.dropped;
      return;
    }
    this.push({ ...event, dropped: event.dropped + this.#dropped });
    this.#dropped = 0;
  }

  /** No more will come. */
  finish(): void {
    this.push(null);
  }
}
