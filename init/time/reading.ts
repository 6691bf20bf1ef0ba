/** What somebody's clock said. All times are milliseconds; "raw" ones are of our own counter, which nobody adjusts. */

/** A question to a clock and its answer: the clock showed `unixMs` at some moment between the two. */
export interface Reading {
  /** Raw, before the question and after the answer. */
  readonly sentMs: number;
  readonly receivedMs: number;
  readonly unixMs: number;
  /** The clock may have shown up to this much more and said the same: 1 where it counts whole milliseconds. */
  readonly resolutionMs: number;
}

/** Nobody knows when between question and answer the clock was read; this is the middle, and how far off it may be. */
export interface Sample {
  readonly rawMs: number;
  readonly unixMs: number;
  readonly errorMs: number;
}

export function sampleOf({ sentMs, receivedMs, unixMs, resolutionMs }: Reading): Sample {
  return {
    rawMs: (sentMs + receivedMs) / 2,
    unixMs: unixMs + resolutionMs / 2,
    errorMs: (receivedMs - sentMs + resolutionMs) / 2,
  };
}
