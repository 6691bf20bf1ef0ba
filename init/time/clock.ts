/**
 * The enclave's clock: set once before the app runs, steered from then on. It is told what other clocks read, and
 * believes the one that is known best, within what the hypervisor's word allows.
 */
import { Filter, RATE_MAX_PPM } from "./filter.ts";
import type { Reading } from "./reading.ts";
import { type Bounds, Window } from "./window.ts";

/** `ptp`: /dev/ptp0. `nsm`: the timestamp of an attestation document. Both are the hypervisor's; `parent` is not. */
export type SourceName = "ptp" | "parent" | "nsm";

const SOURCES: readonly SourceName[] = ["ptp", "parent", "nsm"];
const NO_BOUNDS: Bounds = { lowMs: Number.NEGATIVE_INFINITY, highMs: Number.POSITIVE_INFINITY };

/** What is steered. Milliseconds; `rawMs` is CLOCK_MONOTONIC_RAW. */
export interface Machine {
  rawMs(): number;
  unixMs(): number;
  setUnixMs(unixMs: number): void;
  /** Faster than the counter by this, parts per million. */
  setRatePpm(ppm: number): void;
}

export interface ClockOptions {
  readonly machine: Machine;
  /** No time before this is believed, whoever says so. Unix milliseconds. */
  readonly floorMs: number;
  readonly say: (line: string) => void;
}

/** How often `steer` is to be called. What it set for one turn must not overshoot when the next one comes late. */
export const STEER_INTERVAL_MS = 8_000;
/** The clock gains or loses at most this on its counter to come back to the right time: 1.8 s an hour. */
export const SLEW_MAX_PPM = 500;
/** No enclave runs for longer; a clock in a farther future breaks what counts in 32 bits. */
const LIFETIME_MS = 30 * 365 * 86_400_000;
/** A clock that is off by more is not about to be right soon, and the log says so. */
const FAR_OFF_MS = 1_000;
/** The log has at most one line of a kind in this time. */
const REPEAT_MS = 10 * 60_000;

interface Target {
  readonly unixMs: number;
  readonly errorMs: number;
  readonly ratePpm: number;
  readonly source: SourceName;
}

export class Clock {
  readonly #options: ClockOptions;
  readonly #window = new Window();
  readonly #filters = { ptp: new Filter(), parent: new Filter(), nsm: new Filter() } as const;
  readonly #saidAt = new Map<string, number>();
  #refusals = 0;

  constructor(options: ClockOptions) {
    this.#options = options;
  }

  /** What a clock read. The numbers may be anything finite. */
  add(source: SourceName, reading: Reading): void {
    const { floorMs } = this.#options;
    if (reading.unixMs < floorMs || reading.unixMs > floorMs + LIFETIME_MS) {
      this.#refuse(source, `${date(reading.unixMs)}, expected ${date(floorMs)} or 30 years later at most`);
      return;
    }
    this.#filters[source].add(reading);
    if (source === "nsm") this.#window.add(reading);
    this.#judge();
  }

  /** A source that did not answer. */
  miss(source: SourceName, reason: string): void {
    this.#say(`miss ${source}`, `clock: ${source} does not tell the time: ${reason}`);
  }

  /** Set the clock to the best that is known, before anyone has read it. */
  set(): void {
    const { machine, say } = this.#options;
    const target = this.#target();
    if (target === undefined) {
      say("clock: nobody here tells the time, it stays what the machine says");
      return;
    }
    const bounds = this.#window.at(machine.rawMs()) === undefined ? ", with no NSM to confirm it" : "";
    const offMs = target.unixMs - machine.unixMs();
    const by = `${target.source}, which is right to ${round(target.errorMs)} ms${bounds}`;
    if (Math.abs(offMs) <= target.errorMs) {
      say(`clock: ${signed(-offMs)} ms off by ${by}: not set, steered`);
    } else {
      machine.setUnixMs(target.unixMs);
      say(`clock: set by ${signed(offMs)} ms from ${by}`);
    }
  }

  /** Make it run towards the right time: never a step. Call every STEER_INTERVAL_MS. */
  steer(): void {
    const { machine, floorMs } = this.#options;
    const target = this.#target();
    if (target === undefined) return;
    const offMs = target.unixMs - machine.unixMs();
    if (machine.unixMs() < floorMs) {
      // A machine that started without the time, and nobody told it in time: forward, so order holds.
      this.set();
      return;
    }
    if (Math.abs(offMs) > FAR_OFF_MS) {
      this.#say("off", `clock: ${signed(-offMs)} ms off by ${target.source}; caught up by 1.8 s an hour`);
    }
    const slewPpm = clamp((offMs / STEER_INTERVAL_MS) * 1e6, SLEW_MAX_PPM);
    machine.setRatePpm(clamp(target.ratePpm, RATE_MAX_PPM) + slewPpm);
  }

  /** The clock less what the best source says, milliseconds; 0 while there is none. */
  get skewMs(): number {
    const target = this.#target();
    return target === undefined ? 0 : this.#options.machine.unixMs() - target.unixMs;
  }

  /** How far off the best source may be, milliseconds; a number beyond all clocks while there is none. */
  get errorMs(): number {
    return this.#target()?.errorMs ?? Number.MAX_SAFE_INTEGER;
  }

  /** Forget the readings of sources that contradict the hypervisor's word. */
  #judge(): void {
    const rawMs = this.#options.machine.rawMs();
    const bounds = this.#window.at(rawMs);
    if (bounds === undefined) return;
    for (const source of SOURCES) {
      const estimate = this.#filters[source].at(rawMs);
      if (estimate === undefined) continue;
      const { unixMs, errorMs } = estimate;
      if (unixMs + errorMs >= bounds.lowMs && unixMs - errorMs <= bounds.highMs) continue;
      this.#filters[source].clear();
      const middle = (bounds.lowMs + bounds.highMs) / 2;
      const width = round((bounds.highMs - bounds.lowMs) / 2);
      this.#refuse(source, `${signed(unixMs - middle)} ms from the NSM's time, expected at most ${width}`);
    }
  }

  /** The source that is known best, held within the hypervisor's bounds. */
  #target(): Target | undefined {
    const rawMs = this.#options.machine.rawMs();
    const { lowMs, highMs } = this.#window.at(rawMs) ?? NO_BOUNDS;
    let best: Target | undefined;
    for (const source of SOURCES) {
      const estimate = this.#filters[source].at(rawMs);
      if (estimate === undefined) continue;
      const unixMs = Math.max(lowMs, Math.min(estimate.unixMs, highMs));
      const errorMs = estimate.errorMs + Math.abs(unixMs - estimate.unixMs);
      if (best === undefined || errorMs < best.errorMs) best = { ...estimate, unixMs, errorMs, source };
    }
    return best;
  }

  #refuse(source: SourceName, what: string): void {
    this.#refusals++;
    this.#say("refused", `clock: ${source}'s time refused: got ${what}; ${this.#refusals} so far`);
  }

  #say(kind: string, line: string): void {
    const rawMs = this.#options.machine.rawMs();
    const before = this.#saidAt.get(kind);
    if (before !== undefined && rawMs - before < REPEAT_MS) return;
    this.#saidAt.set(kind, rawMs);
    this.#options.say(line);
  }
}

function clamp(value: number, most: number): number {
  return Math.max(-most, Math.min(value, most));
}

/** As far as dates go: ECMA-262 §21.4.1.1. */
function date(unixMs: number): string {
  return Math.abs(unixMs) <= 8.64e15 ? new Date(unixMs).toISOString() : String(unixMs);
}

function round(ms: number): number {
  return Number(ms.toPrecision(3));
}

function signed(ms: number): string {
  return `${ms < 0 ? "" : "+"}${Math.round(ms)}`;
}
