/** What an enclave told so far, for a test to look at, and to show when it fails. */
import type { EnclaveEvent } from "../../launcher/event.ts";
import type { LogEvent } from "../../launcher/logs.ts";

/** The latest; a test that makes an enclave say more is not to run out of memory. */
const EVENTS_MAX = 10_000;

interface Waiter {
  readonly matches: (event: LogEvent) => boolean;
  readonly resolve: (event: LogEvent) => void;
  readonly reject: () => void;
}

export class Story {
  #events: EnclaveEvent[] = [];
  readonly #waiters = new Set<Waiter>();
  #isOver = false;

  hear(event: EnclaveEvent): void {
    this.#events.push(event);
    if (this.#events.length > EVENTS_MAX) this.#events = this.#events.slice(EVENTS_MAX / 2);
    if (event.type === "log") this.#tell(event);
    if (event.type === "exit") this.#finish();
  }

  get events(): readonly EnclaveEvent[] {
    return this.#events;
  }

  get logs(): readonly LogEvent[] {
    return this.#events.filter((event) => event.type === "log");
  }

  /** Vsock ports that the app listened on when it was ready. */
  get ports(): readonly number[] {
    return this.#events.find((event) => event.type === "ready")?.ports ?? [];
  }

  /** The first record so far, or else to come, whose text has `what`. Rejects when the enclave ended without. */
  async find(what: string | RegExp): Promise<LogEvent> {
    const matches = ({ text }: LogEvent) =>
      typeof what === "string" ? text.includes(what) : text.search(what) >= 0;
    const found = this.logs.find(matches);
    if (found !== undefined) return found;
    if (this.#isOver) throw this.#missing(what);
    const { promise, resolve, reject } = Promise.withResolvers<LogEvent>();
    const waiter = { matches, resolve, reject: () => reject(this.#missing(what)) };
    this.#waiters.add(waiter);
    return await promise.finally(() => this.#waiters.delete(waiter));
  }

  #tell(event: LogEvent): void {
    for (const waiter of this.#waiters) if (waiter.matches(event)) waiter.resolve(event);
  }

  #finish(): void {
    this.#isOver = true;
    for (const { reject } of this.#waiters) reject();
  }

  #missing(what: string | RegExp): Error {
    return new Error(`log: expected ${JSON.stringify(String(what))}, and the enclave ended:\n${this}`);
  }

  /** A line an event. */
  toString(): string {
    return this.#events.map(line).join("\n");
  }
}

function line(event: EnclaveEvent): string {
  if (event.type === "log") return `${event.source}: ${event.text}`;
  const { type, ...rest } = event;
  return `${type}: ${JSON.stringify(rest)}`;
}
