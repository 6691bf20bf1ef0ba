/** Names that enclaves ask for, by the parent's own resolver: /etc/hosts and all. */
import { promises as dns, type LookupAddress } from "node:dns";
import { setTimeout as sleep } from "node:timers/promises";

/** Of libuv's four threads, so that slow names leave some for everything else. */
const CONCURRENT_MAX = 2;
const TIMEOUT_MS = 10_000;
/** An enclave looks a name up and then connects to it: one question. */
const KEEP_MS = 1_000;

export type Lookup = (name: string) => Promise<readonly LookupAddress[]>;

/** A lookup that failed: `errno` as libuv numbers it. */
export class LookupError extends Error {
  readonly errno: number;

  constructor(name: string, errno: number) {
    super(`${name}: getaddrinfo ${errno}`);
    this.errno = errno;
  }
}

const EAI_AGAIN = -3001;

export class Resolver {
  readonly #lookup: Lookup;
  readonly #timeoutMs: number;
  readonly #answers = new Map<string, Promise<readonly LookupAddress[]>>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(lookup: Lookup = (name) => dns.lookup(name, { all: true }), timeoutMs = TIMEOUT_MS) {
    this.#lookup = lookup;
    this.#timeoutMs = timeoutMs;
  }

  /** All addresses of a canonical name. Rejects with LookupError, after 10 s with EAI_AGAIN. */
  addresses(name: string): Promise<readonly LookupAddress[]> {
    const asked = this.#answers.get(name);
    if (asked !== undefined) return asked;
    const answer = this.#deadline(name, this.#ask(name));
    this.#answers.set(name, answer);
    const forget = () => setTimeout(() => this.#answers.delete(name), KEEP_MS).unref();
    answer.then(forget, forget);
    return answer;
  }

  async #deadline<T>(name: string, answer: Promise<T>): Promise<T> {
    const aborter = new AbortController();
    const late = sleep(this.#timeoutMs, undefined, { signal: aborter.signal }).then(() => {
      throw new LookupError(name, EAI_AGAIN);
    });
    late.catch(() => {});
    try {
      return await Promise.race([answer, late]);
    } finally {
      aborter.abort();
    }
  }

  async #ask(name: string): Promise<readonly LookupAddress[]> {
    if (this.#running === CONCURRENT_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await this.#lookup(name);
    } catch (error) {
      throw new LookupError(name, (error as NodeJS.ErrnoException).errno ?? EAI_AGAIN);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
