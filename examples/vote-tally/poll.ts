/** A secret ballot: each voter once, nothing but totals, and those only at the end. */
import { createHash } from "node:crypto";

export interface PollOptions {
  readonly choices: readonly string[];
  /** SHA-256, hexadecimal, of each voter's token. */
  readonly voters: readonly string[];
}

export interface Result {
  readonly counts: Readonly<Record<string, number>>;
  readonly voters: number;
}

export class Poll {
  readonly #counts: Map<string, number>;
  /** Voters who have not voted. Which choice was whose is written down nowhere. */
  readonly #waiting: Set<string>;
  readonly #voters: number;

  constructor({ choices, voters }: PollOptions) {
    this.#counts = new Map(choices.map((choice) => [choice, 0]));
    this.#waiting = new Set(voters);
    this.#voters = this.#waiting.size;
  }

  get missing(): number {
    return this.#waiting.size;
  }

  /** Count a ballot; the reason why not, if it is refused. */
  vote(token: string, choice: string): string | undefined {
    const count = this.#counts.get(choice);
    if (count === undefined) return `choice: expected one of ${[...this.#counts.keys()].join(", ")}`;
    const voter = createHash("sha256").update(token).digest("hex");
    if (!this.#waiting.delete(voter)) return "token: expected one of a voter who has not voted";
    this.#counts.set(choice, count + 1);
    return undefined;
  }

  /** Undefined while ballots are missing: totals of an unfinished poll tell who voted what. */
  result(): Result | undefined {
    if (this.missing > 0) return undefined;
    return { counts: Object.fromEntries(this.#counts), voters: this.#voters };
  }
}
