/** When which clock is asked: a burst before the app runs, then ever more rarely. */
import { type Clock, STEER_INTERVAL_MS } from "./clock.ts";
import type { Reading } from "./reading.ts";
import type { RawClock } from "./sources.ts";

export interface KeeperOptions {
  readonly clock: Clock;
  readonly rawMs: RawClock;
  /** Ask the parent, who answers to `answer`. False: there is none, or it does not read. */
  readonly ask: (sentMs: number) => boolean;
  /** Undefined where this machine has none. */
  readonly readNsm: (() => Promise<Reading>) | undefined;
  readonly readPtp: (() => Reading) | undefined;
  /** Default: timers that keep no thread alive. */
  readonly after?: After;
}

/** Do it so many milliseconds later; returns how to call it off. */
export type After = (ms: number, task: () => void) => () => void;

function afterTimeout(ms: number, task: () => void): () => void {
  const timer = setTimeout(task, ms).unref();
  return () => clearTimeout(timer);
}

/** Questions to the parent at boot, one after the other. */
const BURST = 8;
/** The boot waits this long for the parent; the hypervisor it needs for its entropy anyway. */
const BURST_LIMIT_MS = 1_000;
/** An answer that comes later says too little. */
const ANSWER_LIMIT_MS = 2_000;
/** The intervals double from the first to the last. */
const ASK_INTERVALS_MS = [2_000, 64_000] as const;
const NSM_INTERVALS_MS = [30_000, 10 * 60_000] as const;

export class ClockKeeper {
  readonly #options: KeeperOptions;
  readonly #after: After;
  #question: { readonly sentMs: number; readonly settle: (answered: boolean) => void } | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#after = options.after ?? afterTimeout;
  }

  /** Set the clock. `connected` settles when the first attempt to reach the parent is over. Never rejects. */
  async boot(connected: Promise<void>): Promise<void> {
    const burst = connected.then(() => this.#burst());
    await this.#readNsm();
    this.#readPtp();
    const limit = Promise.withResolvers<void>();
    const cancel = this.#after(BURST_LIMIT_MS, limit.resolve);
    await Promise.race([burst, limit.promise]);
    cancel();
    this.#options.clock.set();
  }

  /** From then on. */
  keep(): void {
    const { clock, readNsm } = this.#options;
    this.#repeat([STEER_INTERVAL_MS, STEER_INTERVAL_MS], async () => clock.steer());
    this.#repeat(ASK_INTERVALS_MS, async () => {
      this.#readPtp();
      await this.#ask();
    });
    if (readNsm !== undefined) this.#repeat(NSM_INTERVALS_MS, () => this.#readNsm());
  }

  /** The parent says: at the question of `sentMs` it was `unixMs`. An answer to no question is none. */
  answer({ sentMs, unixMs }: { readonly sentMs: number; readonly unixMs: number }): void {
    if (this.#question?.sentMs !== sentMs) return;
    const { clock, rawMs } = this.#options;
    // Date.now() counts whole milliseconds.
    clock.add("parent", { sentMs, receivedMs: rawMs(), unixMs, resolutionMs: 1 });
    this.#question.settle(true);
  }

  async #burst(): Promise<void> {
    for (let i = 0; i < BURST; i++) if (!(await this.#ask())) return;
  }

  /** Resolves with whether it was answered in time. */
  #ask(): Promise<boolean> {
    this.#question?.settle(false);
    const { ask, rawMs } = this.#options;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const cancel = this.#after(ANSWER_LIMIT_MS, () => settle(false));
    const settle = (answered: boolean) => {
      cancel();
      this.#question = undefined;
      resolve(answered);
    };
    const sentMs = rawMs();
    this.#question = { sentMs, settle };
    if (!ask(sentMs)) settle(false);
    return promise;
  }

  async #readNsm(): Promise<void> {
    const { clock, readNsm } = this.#options;
    try {
      if (readNsm !== undefined) clock.add("nsm", await readNsm());
    } catch (error) {
      clock.miss("nsm", (error as Error).message);
    }
  }

  #readPtp(): void {
    const { clock, readPtp } = this.#options;
    try {
      if (readPtp !== undefined) clock.add("ptp", readPtp());
    } catch (error) {
      clock.miss("ptp", (error as Error).message);
    }
  }

  /** Do it after the first interval, and again after twice that, until the last interval, which repeats. */
  #repeat([first, last]: readonly [number, number], task: () => Promise<void>): void {
    this.#after(first, async () => {
      await task();
      this.#repeat([Math.min(first * 2, last), last], task);
    });
  }
}
