/** Counts of what the app's threads ask of the outbound network, in memory that they share with the housekeeping thread. */
import { getEnvironmentData, setEnvironmentData } from "node:worker_threads";

/** A worker has its creator's environment data, and memory that is shared stays shared. */
const KEY = "cloister.tally";
const ALLOWED = 0;
const DENIED = 1;

export class Tally {
  readonly #counts: BigInt64Array<SharedArrayBuffer>;

  constructor(buffer = new SharedArrayBuffer(16)) {
    this.#counts = new BigInt64Array(buffer);
  }

  /** The one that this thread shares with the enclave; one of its own in a process that shares none. */
  static ofThread(): Tally {
    const buffer = getEnvironmentData(KEY) as unknown;
    return buffer instanceof SharedArrayBuffer ? new Tally(buffer) : new Tally();
  }

  /** From here on this thread's, and that of the workers it starts. */
  share(): void {
    setEnvironmentData(KEY, this.buffer as never);
  }

  get buffer(): SharedArrayBuffer {
    return this.#counts.buffer;
  }

  countAllowed(): void {
    Atomics.add(this.#counts, ALLOWED, 1n);
  }

  countDenied(): void {
    Atomics.add(this.#counts, DENIED, 1n);
  }

  get allowed(): number {
    return Number(Atomics.load(this.#counts, ALLOWED));
  }

  get denied(): number {
    return Number(Atomics.load(this.#counts, DENIED));
  }
}
