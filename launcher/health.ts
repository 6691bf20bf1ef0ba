/** How an enclave does, as its supervisor judges by what it hears: for probes, `cloister ps`, and metrics. */
import type { BootPhase } from "../format/control.ts";
import type { EnclaveStats } from "../format/stats.ts";
import type { LaunchStage } from "./event.ts";
import type { EnclaveState } from "./record.ts";
import type { SupervisorEvent } from "./supervisor.ts";

/** An app whose event loop has not turned for this long serves nobody now, milliseconds. */
export const STALLED_MS = 5_000;
/** One that has not for this long is taken for dead. */
export const DEAD_MS = 60_000;
/** Enclaves tell how they do every few seconds: the housekeeping thread of one that was quiet for this long is in trouble. */
export const SILENT_MS = 30_000;

export type Condition =
  | Exclude<EnclaveState, "running">
  /** Runs, and is not ready yet. */
  | "booting"
  | "ready"
  /** The app blocks its event loop. */
  | "stalled"
  /** It told how it does before, and no longer does. */
  | "silent";

/** As it crosses processes. */
export interface HealthReport {
  readonly condition: Condition;
  /** How long it has been stalled or silent, milliseconds; else 0. */
  readonly forMs: number;
  /** The enclave lives, as far as one can tell: what `/healthz` asks. */
  readonly alive: boolean;
  /** It can take requests: what `/readyz` asks. */
  readonly ready: boolean;
  /** Its last word of this boot, and how long ago that was, milliseconds. */
  readonly stats?: EnclaveStats;
  readonly statsAgeMs?: number;
}

/** Of the boot that is under way or went well: milliseconds. */
export interface BootTimes {
  /** Since the launch began. */
  readonly stages: ReadonlyMap<LaunchStage, number>;
  /** Since the enclave's kernel began. */
  readonly phases: ReadonlyMap<BootPhase, number>;
  /** Since the launch began; undefined until it is ready. */
  readonly readyMs: number | undefined;
}

interface Boot extends BootTimes {
  readonly stages: Map<LaunchStage, number>;
  readonly phases: Map<BootPhase, number>;
  readyMs: number | undefined;
  stats: { readonly values: EnclaveStats; readonly at: number } | undefined;
  /** As it was told last. */
  stalledMs: number;
  heardAt: number;
}

const newBoot = (): Boot => ({
  stages: new Map(),
  phases: new Map(),
  readyMs: undefined,
  stats: undefined,
  stalledMs: 0,
  heardAt: 0,
});

export class Health {
  readonly #state: () => EnclaveState;
  readonly #now: () => number;
  #boot = newBoot();

  /** `state`: of the record. `now`: milliseconds that only grow. */
  constructor(state: () => EnclaveState, now: () => number = () => performance.now()) {
    this.#state = state;
    this.#now = now;
  }

  get boot(): BootTimes {
    return this.#boot;
  }

  /** Every event of the enclave, in order. */
  observe(event: SupervisorEvent): void {
    switch (event.type) {
      case "stage":
        // The first of a launch: what the enclave before said is of no more use.
        if (event.stage === "memory") this.#boot = newBoot();
        this.#boot.stages.set(event.stage, event.elapsedMs);
        break;
      case "phase":
        this.#boot.phases.set(event.phase, event.uptimeMs);
        this.#hear();
        break;
      case "ready":
        this.#boot.readyMs = event.elapsedMs;
        // The app's own thread says so: its event loop turns.
        this.#boot.stalledMs = 0;
        this.#hear();
        break;
      case "log":
        this.#hear();
        break;
      case "stats":
        this.#hear();
        this.#boot.stats = { values: event.stats, at: this.#boot.heardAt };
        this.#boot.stalledMs = event.stats.stalledMs;
    }
  }

  #hear(): void {
    this.#boot.heardAt = this.#now();
  }

  report(): HealthReport {
    const { stats } = this.#boot;
    const { condition, forMs } = this.#judge();
    return {
      condition,
      forMs,
      alive: isAlive(condition, forMs),
      ready: condition === "ready",
      ...(stats !== undefined && { stats: stats.values, statsAgeMs: this.#now() - stats.at }),
    };
  }

  #judge(): { readonly condition: Condition; readonly forMs: number } {
    const state = this.#state();
    if (state !== "running") return { condition: state, forMs: 0 };
    const { stats, stalledMs, heardAt, readyMs } = this.#boot;
    // An image of other tools, or of a release that told nothing, is never silent.
    const quietMs = stats === undefined ? 0 : this.#now() - heardAt;
    if (quietMs >= SILENT_MS) return { condition: "silent", forMs: quietMs };
    // The evaluation of a large app blocks its event loop too.
    const isBooting = readyMs === undefined;
    if (stalledMs >= (isBooting ? DEAD_MS : STALLED_MS)) return { condition: "stalled", forMs: stalledMs };
    return { condition: isBooting ? "booting" : "ready", forMs: 0 };
  }
}

function isAlive(condition: Condition, forMs: number): boolean {
  switch (condition) {
    case "booting":
    case "ready":
    case "stopping":
      return true;
    case "stalled":
      return forMs < DEAD_MS;
    case "starting":
    case "restarting":
    case "ended":
    case "silent":
      return false;
  }
}

/** One line: `ready`, `stalled for 12 s`. */
export function healthText({ condition, forMs }: HealthReport): string {
  return forMs === 0 ? condition : `${condition} for ${Math.floor(forMs / 1000)} s`;
}
