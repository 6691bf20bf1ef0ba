/**
 * The keys that requests are encrypted to, and what was encrypted to them. A key is handed out for its first hour, serves
 * for two, and is forgotten then, with the list of its requests: what is recorded cannot be replayed later, nor read by
 * whoever breaks in later.
 */
import { createMessageKey, type MessageKey } from "../format/ohttp.ts";

const HANDED_OUT_MS = 60 * 60_000;
const LIFETIME_MS = 2 * HANDED_OUT_MS;
/** Requests that one key serves: each is remembered, in about 75 bytes. */
const REQUESTS_MAX = 100_000;
/** With early changes. The oldest goes: so much memory, and no more, can be filled from outside. */
const KEYS_MAX = 4;

interface Held {
  readonly key: MessageKey;
  readonly born: number;
  /** Encapsulated keys, one byte a character: the smallest that a Set compares by value. */
  readonly seen: Set<string>;
  readonly timer: NodeJS.Timeout;
}

export interface MessageKeysOptions {
  /** Milliseconds that only grow. */
  readonly now?: () => number;
  readonly requestsMax?: number;
}

export class MessageKeys {
  readonly #held = new Map<number, Held>();
  readonly #now: () => number;
  readonly #requestsMax: number;
  #newest: Promise<Held> | undefined;
  #nextId = 0;

  constructor({ now = () => performance.now(), requestsMax = REQUESTS_MAX }: MessageKeysOptions = {}) {
    this.#now = now;
    this.#requestsMax = requestsMax;
  }

  /** The key for the next document. */
  async current(): Promise<MessageKey> {
    const pending = this.#newest;
    const newest = await pending;
    if (newest !== undefined && this.#isGood(newest)) return newest.key;
    // Whoever waited for the same key makes only one new one.
    if (this.#newest === pending) this.#newest = this.#create();
    return this.current();
  }

  #isGood(held: Held): boolean {
    const isKnown = this.#held.get(held.key.id) === held;
    return isKnown && this.#now() - held.born < HANDED_OUT_MS && held.seen.size < this.#requestsMax;
  }

  async #create(): Promise<Held> {
    const id = this.#nextId;
    this.#nextId = (id + 1) % 256;
    const key = await createMessageKey(id);
    const timer = setTimeout(() => this.#forget(id), LIFETIME_MS).unref();
    const held = { key, born: this.#now(), seen: new Set<string>(), timer };
    this.#held.set(id, held);
    const [oldest] = this.#held.keys();
    if (this.#held.size > KEYS_MAX && oldest !== undefined) this.#forget(oldest);
    return held;
  }

  #forget(id: number): void {
    clearTimeout(this.#held.get(id)?.timer);
    this.#held.delete(id);
  }

  /** undefined: never made, forgotten, or with as many requests as it serves. */
  find(id: number): MessageKey | undefined {
    const held = this.#held.get(id);
    return held === undefined || held.seen.size >= this.#requestsMax ? undefined : held.key;
  }

  /** Whether this is the first request with this encapsulated key; from now on it was there. */
  isFirst(key: MessageKey, encapsulated: Uint8Array): boolean {
    const held = this.#held.get(key.id);
    const text = Buffer.from(encapsulated).toString("latin1");
    // A key that was forgotten meanwhile has no list any more.
    if (held?.key !== key || held.seen.has(text)) return false;
    held.seen.add(text);
    return true;
  }
}
