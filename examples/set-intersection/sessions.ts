/** Two parties' sets, kept until both know what they have in common. */

export interface Limits {
  /** Sessions at a time; the oldest goes. */
  readonly sessions: number;
  /** Elements of a set, and characters of an element. */
  readonly elements: number;
  readonly length: number;
}

interface Session {
  readonly sets: Map<string, ReadonlySet<string>>;
  readonly told: Set<string>;
}

const PARTIES = 2;

export class Sessions {
  readonly #limits: Limits;
  readonly #sessions = new Map<string, Session>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** `party`: a secret of its own choice. The reason, where it is refused. A set cannot be replaced: that would probe the other. */
  upload(id: string, party: string, text: string): string | undefined {
    const set = new Set(text.split("\n").filter((line) => line !== ""));
    if (set.size > this.#limits.elements) return `expected at most ${this.#limits.elements} lines`;
    if ([...set].some((line) => line.length > this.#limits.length))
      return `expected lines of at most ${this.#limits.length} characters`;
    const session = this.#open(id);
    if (session.sets.has(party)) return "this party has uploaded its set";
    if (session.sets.size === PARTIES) return "this session has its two parties";
    session.sets.set(party, set);
    return undefined;
  }

  /** What both have; undefined while one set is missing, null for who is no party. Forgotten once both were told. */
  intersection(id: string, party: string): readonly string[] | undefined | null {
    const session = this.#sessions.get(id);
    if (session === undefined || !session.sets.has(party)) return null;
    const [first, second] = session.sets.values();
    if (first === undefined || second === undefined) return undefined;
    session.told.add(party);
    if (session.told.size === PARTIES) this.#sessions.delete(id);
    return [...first].filter((element) => second.has(element)).sort();
  }

  #open(id: string): Session {
    const found = this.#sessions.get(id);
    if (found !== undefined) return found;
    const [oldest] = this.#sessions.keys();
    if (this.#sessions.size === this.#limits.sessions && oldest !== undefined) this.#sessions.delete(oldest);
    const session: Session = { sets: new Map(), told: new Set() };
    this.#sessions.set(id, session);
    return session;
  }
}
