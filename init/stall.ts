/** Notices that the app's event loop stands still, and says so once; and once when it turns again. */

/** Less is busy: a garbage collection, a large import. */
export const STALL_MS = 2_000;

export class StallWatch {
  readonly #say: (text: string, level: "info" | "warn") => void;
  /** The last beat before the stall that was told. */
  #since: number | undefined;

  constructor(say: (text: string, level: "info" | "warn") => void) {
    this.#say = say;
  }

  /** Both in milliseconds of uptime; `beatMs` is 0 before the first one. How long it has stood still; 0 while it turns. */
  check(nowMs: number, beatMs: number): number {
    const ageMs = beatMs === 0 ? 0 : nowMs - beatMs;
    if (this.#since !== undefined && beatMs > this.#since) {
      this.#say(`the app's event loop turns again after ${seconds(beatMs - this.#since)}`, "info");
      this.#since = undefined;
    }
    if (ageMs < STALL_MS) return 0;
    if (this.#since === undefined) {
      this.#since = beatMs;
      this.#say(`the app's event loop has not turned for ${seconds(ageMs)}: something blocks it`, "warn");
    }
    return ageMs;
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
