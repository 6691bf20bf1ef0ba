/**
 * What the readings of one clock say together. The idea is NTP's (RFC 5905 §10): the reading with the shortest way is the
 * best, and a reading's worth fades with its age.
 */
import { type Reading, type Sample, sampleOf } from "./reading.ts";

export interface Estimate {
  /** The clock's time at the moment that was asked about. */
  readonly unixMs: number;
  /** It is not further off than this. */
  readonly errorMs: number;
  /** What our counter must be sped up by to run as the clock does, parts per million. */
  readonly ratePpm: number;
}

/** At the longest interval between questions these are an hour. */
const SAMPLES_MAX = 64;
/** No counter runs this wrong: the kernel's own calibration of a TSC is good to it (arch/x86/kernel/tsc.c). */
export const RATE_MAX_PPM = 500;
/** A rate changes with the temperature: what is added to the error of one that was measured. */
const WANDER_PPM = 5;
/** A rate that was measured worse than this is not worth having. */
const RATE_ERROR_MAX_PPM = 100;
/** A new measurement may be this much worse than the one it replaces; else it waits until that one has aged. */
const RATE_ERROR_RATIO = 1.5;
const RATE_AGING_PPM = 1;

export class Filter {
  #samples: Sample[] = [];
  #ratePpm = 0;
  #rateErrorPpm = RATE_MAX_PPM;

  add(reading: Reading): void {
    const sample = sampleOf(reading);
    const expected = this.at(sample.rawMs);
    const surprise = expected === undefined ? 0 : Math.abs(sample.unixMs - expected.unixMs);
    // Both bounds are strict, so the clock was set meanwhile: what it said before counts no more.
    if (expected !== undefined && surprise > expected.errorMs + sample.errorMs) this.clear();
    this.#samples.push(sample);
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
    this.#measureRate();
  }

  /** Forget the readings; the counter's rate is the counter's own and stays. */
  clear(): void {
    this.#samples = [];
  }

  /** The clock's time at a raw moment. Undefined without readings. */
  at(rawMs: number): Estimate | undefined {
    const errorAt = (sample: Sample) =>
      sample.errorMs + (Math.abs(rawMs - sample.rawMs) * this.#rateErrorPpm) / 1e6;
    const best = least(this.#samples, errorAt);
    if (best === undefined) return undefined;
    const unixMs = best.unixMs + (rawMs - best.rawMs) * (1 + this.#ratePpm / 1e6);
    return { unixMs, errorMs: errorAt(best), ratePpm: this.#ratePpm };
  }

  /** From the best reading of the older half of the time to the best one of the newer half. */
  #measureRate(): void {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined) return;
    const middle = (first.rawMs + last.rawMs) / 2;
    const ownError = ({ errorMs }: Sample) => errorMs;
    const from = least(
      this.#samples.filter(({ rawMs }) => rawMs < middle),
      ownError,
    );
    const to = least(
      this.#samples.filter(({ rawMs }) => rawMs >= middle),
      ownError,
    );
    if (from === undefined || to === undefined) return;
    const spanMs = to.rawMs - from.rawMs;
    const ppm = ((to.unixMs - from.unixMs - spanMs) / spanMs) * 1e6;
    const errorPpm = ((from.errorMs + to.errorMs) / spanMs) * 1e6 + WANDER_PPM;
    if (errorPpm > Math.min(RATE_ERROR_MAX_PPM, this.#rateErrorPpm * RATE_ERROR_RATIO)) {
      this.#rateErrorPpm = Math.min(this.#rateErrorPpm + RATE_AGING_PPM, RATE_MAX_PPM);
    } else {
      this.#ratePpm = Math.max(-RATE_MAX_PPM, Math.min(ppm, RATE_MAX_PPM));
      this.#rateErrorPpm = errorPpm;
    }
  }
}

function least<T>(items: readonly T[], by: (item: T) => number): T | undefined {
  let best: T | undefined;
  let bestValue = Number.POSITIVE_INFINITY;
  for (const item of items) {
    const value = by(item);
    if (value < bestValue) [best, bestValue] = [item, value];
  }
  return best;
}
