/** The pulse of the app's thread: it says every moment that its event loop turns, and how late. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import { uptimeMs } from "../linux/clock.ts";

const BEAT_MS = 250;
/** Of node:perf_hooks, whose delays include it. Twenty looks a second cost an idle enclave 0.2 % of a CPU. */
const RESOLUTION_MS = 50;

/** Slots of the shared memory. Float64: both architectures store an aligned one whole. */
const BEAT = 0;
const P50 = 1;
const P99 = 2;
const MAX = 3;
const HEAP_USED = 4;
/** The reader has seen the delays so far. */
const SEEN = 5;
const SLOTS = 6;

export class Pulse {
  readonly #slots: Float64Array<SharedArrayBuffer>;

  constructor(buffer = new SharedArrayBuffer(SLOTS * Float64Array.BYTES_PER_ELEMENT)) {
    this.#slots = new Float64Array(buffer);
  }

  get buffer(): SharedArrayBuffer {
    return this.#slots.buffer;
  }

  /** In the app's thread; keeps no event loop alive. */
  start(): void {
    const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    delays.enable();
    // A delay that begins just after a reset() is not in the histogram; a beat that comes late shows it.
    let latest = 0;
    let due = uptimeMs();
    const beat = () => {
      const now = uptimeMs();
      // First, so that a delay which was under way when the reader looked counts in what it sees next.
      if (this.#slots[SEEN] !== 0) {
        this.#slots[SEEN] = 0;
        latest = 0;
        delays.reset();
      }
      latest = Math.max(latest, now - due);
      due = now + BEAT_MS;
      const delayMs = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
      this.#slots[P50] = delayMs(delays.percentile(50));
      this.#slots[P99] = delayMs(delays.percentile(99));
      this.#slots[MAX] = Math.max(latest, delayMs(delays.max));
      this.#slots[HEAP_USED] = getHeapStatistics().used_heap_size;
      this.#slots[BEAT] = now;
    };
    beat();
    setInterval(beat, BEAT_MS).unref();
  }

  /** When the event loop turned last, milliseconds of uptime; 0 before `start`. */
  get beatMs(): number {
    return this.#at(BEAT);
  }

  /** Of the app's thread since the last call, milliseconds and bytes. */
  take(): { readonly p50: number; readonly p99: number; readonly max: number; readonly heapUsed: number } {
    this.#slots[SEEN] = 1;
    return { p50: this.#at(P50), p99: this.#at(P99), max: this.#at(MAX), heapUsed: this.#at(HEAP_USED) };
  }

  #at(slot: number): number {
    return this.#slots[slot] ?? 0;
  }
}
