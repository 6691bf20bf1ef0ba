/** The time by the hypervisor's word, between two bounds: what nobody else may move the clock out of. */
import { RATE_MAX_PPM } from "./filter.ts";
import type { Reading } from "./reading.ts";

/**
 * What an honest clock may differ by from the hypervisor's. Both follow the same time service to less than a millisecond;
 * this leaves room for a parent that follows another one.
 */
export const SLACK_MS = 250;

export interface Bounds {
  readonly lowMs: number;
  readonly highMs: number;
}

export class Window {
  #reading: Reading | undefined;

  /** A newer word of the hypervisor, which counts unless the one before still says more. */
  add(reading: Reading): void {
    const before = this.at(reading.receivedMs);
    const after = boundsOf(reading, reading.receivedMs);
    // Bounds that do not meet: the hypervisor's clock was set meanwhile.
    const agrees = before && after.lowMs <= before.highMs && after.highMs >= before.lowMs;
    if (agrees && after.highMs - after.lowMs > before.highMs - before.lowMs) return;
    this.#reading = reading;
  }

  /** At a raw moment since the last word. They widen by as much as our counter may run wrong. */
  at(rawMs: number): Bounds | undefined {
    return this.#reading && boundsOf(this.#reading, rawMs);
  }
}

/** It was made after it was asked for and before it came. */
function boundsOf({ sentMs, receivedMs, unixMs, resolutionMs }: Reading, rawMs: number): Bounds {
  const rate = RATE_MAX_PPM / 1e6;
  return {
    lowMs: unixMs + (rawMs - receivedMs) * (1 - rate) - SLACK_MS,
    highMs: unixMs + resolutionMs + (rawMs - sentMs) * (1 + rate) + SLACK_MS,
  };
}
