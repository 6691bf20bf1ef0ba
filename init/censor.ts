/** The configuration's `redact`, applied to lines before anything sees them, within a time that it cannot exceed. */
import { Redactor } from "../format/redact.ts";
import { runWithin } from "./guard.ts";
import type { Line } from "./records.ts";

/** For the lines of one read of a pipe: a shutdown waits that long at most. */
const LIMIT_MS = 1_000;
/** For one line, which takes microseconds; but a machine that others use too may stop for a while. */
const LINE_LIMIT_MS = 400;

/** A part of a line does not show what it is a part of. */
const PART = "[redacted: part of a line that is too long to be looked through]";
const SLOW = "[redacted: the patterns of redact took too long]";

export class Censor {
  readonly #redactor: Redactor;
  readonly #limitMs: number;

  /** `rules`: of format/redact.ts. */
  constructor(rules: readonly string[], limitMs = LIMIT_MS) {
    this.#redactor = new Redactor(rules);
    this.#limitMs = limitMs;
    // The first line must not pay for what is compiled then.
    if (this.#redactor.hasPatterns) runWithin(limitMs, () => this.#redactor.line('{"a":"b"}'));
  }

  /** As many texts as lines. One that the patterns do not get through in time is withheld as a whole. */
  texts(lines: readonly Line[]): string[] {
    const redactor = this.#redactor;
    if (!redactor.isActive) return lines.map(({ text }) => text);
    const done: string[] = [];
    const work = () => {
      for (const { text, isPart } of lines.slice(done.length)) done.push(isPart ? PART : redactor.line(text));
    };
    if (!redactor.hasPatterns) work();
    const end = performance.now() + this.#limitMs;
    while (done.length < lines.length) {
      const before = done.length;
      const leftMs = Math.min(end - performance.now(), LINE_LIMIT_MS);
      // Where some lines were done in time, the next one has not had its own time yet.
      if (leftMs <= 0 || (!runWithin(leftMs, work) && done.length === before)) done.push(SLOW);
    }
    return done;
  }
}
