/** A machine, its hypervisor and its parent in simulated time: everything that init/time/ reads and steers. */
import { Clock } from "../../../init/time/clock.ts";
import { ClockKeeper } from "../../../init/time/keeper.ts";
import type { Reading } from "../../../init/time/reading.ts";
import { encodeRate } from "../../../linux/clock.ts";

export const FLOOR = Date.UTC(2026, 9, 1);
/** When the simulation begins. */
export const START = Date.UTC(2027, 0, 1);
export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;

export interface WorldOptions {
  /** What the counter gains, parts per million, at a time since the start. */
  readonly driftPpm?: (ms: number) => number;
  /** What the machine's clock is off by when it starts. */
  readonly bootOffMs?: number;
  /** The way to the parent and back, milliseconds each, for one question. */
  readonly delays?: () => readonly [number, number];
  /** What the parent answers at a time, Unix milliseconds; undefined: nothing. Default: the time. */
  readonly parent?: (unixMs: number) => number | undefined;
  /** No connection to the parent. */
  readonly isAlone?: boolean;
  /** The way to the hypervisor and back. Undefined: no NSM. */
  readonly nsmDelays?: (() => readonly [number, number]) | undefined;
  /** What the hypervisor's clock is off by. */
  readonly nsmOffMs?: number;
  readonly hasPtp?: boolean;
}

interface Event {
  readonly atMs: number;
  readonly task: () => void;
}

export class World {
  readonly clock: Clock;
  readonly keeper: ClockKeeper;
  readonly said: string[] = [];
  /** Each time the clock was set. */
  readonly steps: number[] = [];
  /** The fastest and the slowest that the clock ever ran, parts per million of the counter. */
  readonly rates: number[] = [];
  readonly #options: WorldOptions;
  #events: Event[] = [];
  /** True time since the start. */
  #nowMs = 0;
  #rawMs = 5_000;
  #clockMs: number;
  #ratePpm = 0;

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    this.#clockMs = START + (options.bootOffMs ?? 0);
    const { nsmDelays = () => [10, 10] as const } = options;
    const machine = {
      rawMs: () => this.#rawMs,
      unixMs: () => this.#clockMs,
      setUnixMs: (unixMs: number) => {
        this.steps.push(unixMs - this.#clockMs);
        this.#clockMs = unixMs;
      },
      setRatePpm: (ppm: number) => {
        const { tick, freq } = encodeRate(ppm);
        this.#ratePpm = (Number(tick) - 10_000) * 100 + Number(freq) / 65_536;
        this.rates.push(this.#ratePpm);
      },
    };
    this.clock = new Clock({ machine, floorMs: FLOOR, say: (line) => this.said.push(line) });
    const hasNsm = !("nsmDelays" in options) || options.nsmDelays !== undefined;
    this.keeper = new ClockKeeper({
      clock: this.clock,
      rawMs: machine.rawMs,
      ask: (sentMs) => this.#ask(sentMs),
      readNsm: hasNsm ? () => this.#readNsm(nsmDelays() as readonly [number, number]) : undefined,
      readPtp: options.hasPtp ? () => this.#readPtp() : undefined,
      after: (ms, task) => this.#after(ms, task),
    });
  }

  /** The right time. */
  get trueMs(): number {
    return START + this.#nowMs;
  }

  /** How far off the clock is. */
  get offMs(): number {
    return this.#clockMs - this.trueMs;
  }

  get elapsedMs(): number {
    return this.#nowMs;
  }

  get rawMs(): number {
    return this.#rawMs;
  }

  get clockMs(): number {
    return this.#clockMs;
  }

  /** Boot, then go on until so much time has passed since the start. `look` sees the world after every event. */
  async run(untilMs: number, look: (world: World) => void = () => {}): Promise<this> {
    let isBooted = false;
    const booted = this.keeper.boot(Promise.resolve()).then(() => {
      this.keeper.keep();
      isBooted = true;
    });
    await this.go(untilMs, () => {
      if (isBooted) look(this);
    });
    await booted;
    return this;
  }

  async go(untilMs: number, look: (world: World) => void = () => {}): Promise<void> {
    for (;;) {
      // Whatever waits for promises alone comes first.
      for (let turn = 0; turn < 8; turn++) await Promise.resolve();
      const next = this.#takeNext(untilMs);
      this.#pass((next?.atMs ?? untilMs) - this.#nowMs);
      if (next === undefined) return;
      next.task();
      look(this);
    }
  }

  #takeNext(untilMs: number): Event | undefined {
    let next: Event | undefined;
    for (const event of this.#events) if (next === undefined || event.atMs < next.atMs) next = event;
    if (next === undefined || next.atMs > untilMs) return undefined;
    this.#events = this.#events.filter((event) => event !== next);
    return next;
  }

  #pass(ms: number): void {
    const counted = ms * (1 + (this.#options.driftPpm?.(this.#nowMs) ?? 0) / 1e6);
    this.#nowMs += ms;
    this.#rawMs += counted;
    this.#clockMs += counted * (1 + this.#ratePpm / 1e6);
  }

  #after(ms: number, task: () => void): () => void {
    const event = { atMs: this.#nowMs + ms, task };
    this.#events.push(event);
    return () => {
      this.#events = this.#events.filter((other) => other !== event);
    };
  }

  #ask(sentMs: number): boolean {
    const {
      isAlone = false,
      delays = () => [0.2, 0.2] as const,
      parent = (unixMs) => unixMs,
    } = this.#options;
    if (isAlone) return false;
    const [there, back] = delays();
    this.#after(there, () => {
      const said = parent(this.trueMs);
      // As Date.now() has it.
      const unixMs = said === undefined ? undefined : Number.isInteger(said) ? said : Math.floor(said);
      if (unixMs !== undefined) this.#after(back, () => this.keeper.answer({ sentMs, unixMs }));
    });
    return true;
  }

  #readNsm([there, back]: readonly [number, number]): Promise<Reading> {
    const sentMs = this.#rawMs;
    const { promise, resolve } = Promise.withResolvers<Reading>();
    this.#after(there, () => {
      const unixMs = Math.floor(this.trueMs + (this.#options.nsmOffMs ?? 0));
      this.#after(back, () => resolve({ sentMs, receivedMs: this.#rawMs, unixMs, resolutionMs: 1 }));
    });
    return promise;
  }

  #readPtp(): Reading {
    return { sentMs: this.#rawMs, receivedMs: this.#rawMs + 0.004, unixMs: this.trueMs, resolutionMs: 0 };
  }
}
