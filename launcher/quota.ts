/**
 * Descriptors that relayed connections may take, of all ports and proxies of this process together. Clients and enclaves
 * connect as often as they like; what watches over the enclaves must still be able to open its files and sockets.
 */
import { descriptorLimit } from "../linux/limit.ts";

/** A connection's two sockets; before it is relayed, another number for each, or what waits for a connect(2). */
const RELAYED = 2;
const BEING_SET_UP = 4;
/** For control channels, logs, the registry, programs that are started: so many, but at most a quarter. */
const RESERVE = 256;
/** Who is refused hears of it each time, who watches at most so often. Milliseconds. */
const QUIET_MS = 60_000;

/** Connections of one port or proxy. */
export interface Load {
  readonly beingSetUp: number;
  readonly relayed: number;
}

export class Quota {
  readonly #limit: number;
  readonly #loads = new Set<() => Load>();

  /** `limit`: descriptors that the process may have. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** For a port or proxy, which says at any time what it has. */
  share(load: () => Load): Share {
    this.#loads.add(load);
    return new Share(this, () => this.#loads.delete(load));
  }

  get hasRoom(): boolean {
    let used = BEING_SET_UP;
    for (const load of this.#loads) {
      const { beingSetUp, relayed } = load();
      used += beingSetUp * BEING_SET_UP + relayed * RELAYED;
    }
    return used <= this.#limit - Math.min(RESERVE, this.#limit / 4);
  }

  get reason(): string {
    return `no room for more connections: this process may have ${this.#limit} descriptors (RLIMIT_NOFILE)`;
  }
}

export class Share {
  readonly #quota: Quota;
  readonly #release: () => void;
  #saidAt = Number.NEGATIVE_INFINITY;

  constructor(quota: Quota, release: () => void) {
    this.#quota = quota;
    this.#release = release;
  }

  /** Whether there is room for another connection. `onFull` is told why not, once a minute. */
  admits(onFull: (reason: string) => void): boolean {
    if (this.#quota.hasRoom) return true;
    const now = performance.now();
    if (now - this.#saidAt >= QUIET_MS) {
      this.#saidAt = now;
      onFull(this.#quota.reason);
    }
    return false;
  }

  close(): void {
    this.#release();
  }
}

/** This process's. */
export const quota = new Quota(process.platform === "linux" ? descriptorLimit() : Number.POSITIVE_INFINITY);
