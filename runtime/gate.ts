/** How often and how many at once: what the outside may ask of something that takes its time. */

export interface GateOptions {
  /** Calls a second, on average. */
  readonly rate: number;
  /** Calls that may come at once after a quiet time. */
  readonly burst: number;
  /** Calls under way or waiting, at most. */
  readonly pending: number;
  /** Milliseconds that only grow: the wall clock is the parent's to set. */
  readonly now?: () => number;
}

/** A token bucket, and a limit of what waits. */
export class Gate {
  readonly #options: GateOptions;
  readonly #now: () => number;
  #tokens: number;
  #filled: number;
  #pending = 0;

  constructor(options: GateOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#tokens = options.burst;
    this.#filled = this.#now();
  }

  /** The call's result, or undefined where it is refused. */
  async run<T>(call: () => Promise<T>): Promise<T | undefined> {
    const { rate, burst, pending } = this.#options;
    const now = this.#now();
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#filled) / 1000) * rate);
    this.#filled = now;
    if (this.#tokens < 1 || this.#pending >= pending) return undefined;
    this.#tokens--;
    this.#pending++;
    try {
      return await call();
    } finally {
      this.#pending--;
    }
  }
}
