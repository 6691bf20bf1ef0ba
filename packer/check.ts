/** Checks of a configuration of unknown shape, and the shape of their messages. */
import { CloisterError } from "../format/errors.ts";

/** The checks that every field shares, and the shape of their messages. */
export class Check {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  failure(path: string, got: unknown, expected: string, fix?: string): CloisterError {
    return new CloisterError(
      "E_CONFIG",
      `${this.#file}: ${path}: got ${show(got)}, expected ${expected}`,
      fix === undefined ? {} : { fix },
    );
  }

  /** A plain object; with `fields`, one that has no others. */
  object(value: unknown, path: string, fields?: readonly string[]): Readonly<Record<string, unknown>> {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw this.failure(path, value, "an object");
    }
    const unknown =
      fields === undefined ? undefined : Object.keys(value).find((key) => !fields.includes(key));
    if (unknown !== undefined) {
      const near = nearest(unknown, fields ?? []);
      const hint = near === undefined ? {} : { fix: `Did you mean "${near}"?` };
      const place = path === "the default export" ? "" : `${path}: `;
      const message = `${this.#file}: ${place}got "${unknown}", expected only ${fields?.join(", ")}`;
      throw new CloisterError("E_CONFIG", message, hint);
    }
    return value as Readonly<Record<string, unknown>>;
  }

  boolean(value: unknown, path: string): boolean {
    if (typeof value === "boolean") return value;
    throw this.failure(path, value, "true or false");
  }

  integer(value: unknown, path: string, least: number, most: number): number {
    if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most)
      return value as number;
    throw this.failure(path, value, `an integer from ${least} to ${most}`);
  }

  optional<T>(
    value: unknown,
    path: string,
    is: (value: unknown) => value is T,
    expected: string,
  ): T | undefined {
    if (value === undefined || is(value)) return value;
    throw this.failure(path, value, expected);
  }
}

/** A value as a message shows it, cut where it is long. */
function show(value: unknown): string {
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    // Cyclic, or a toJSON that throws: its type has to do.
  }
  text ??= String(typeof value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** The candidate at most two edits away from `word`. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const scored = candidates.map((candidate) => ({ candidate, distance: editDistance(word, candidate) }));
  scored.sort((a, b) => a.distance - b.distance);
  return scored.find(({ distance }) => distance <= 2)?.candidate;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next[j] = Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1);
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
