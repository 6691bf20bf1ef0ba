/**
 * What log records never show: rules of the configuration's `redact`. A name hides the values of JSON fields that are
 * called so, at any depth and in any case of letters; a `/pattern/` hides what it matches, in any text.
 */
import { isObject, type Json, type JsonObject } from "./json.ts";
import { jsonOfLine } from "./log.ts";

/** As a message says what a rule may be. */
export const REDACT_EXPECTED = 'a field\'s name, or a regular expression as "/pattern/" or "/pattern/i"';

/** What stands in place of what is hidden. */
export const REDACTED = "[redacted]";

/** What lies deeper is hidden as a whole: no logger nests so far, and a hostile line may nest as far as it is long. */
const DEPTH_MAX = 100;

/** Undefined for a rule that names a field. Throws SyntaxError. */
function patternOf(rule: string): RegExp | undefined {
  const [, pattern, flags] = /^\/(.+)\/(i?)$/s.exec(rule) ?? [];
  return pattern === undefined ? undefined : new RegExp(pattern, `gu${flags}`);
}

/** Is it a rule? */
export function isRedactRule(rule: string): boolean {
  if (rule === "" || !rule.isWellFormed()) return false;
  try {
    return patternOf(rule) !== undefined || !rule.startsWith("/");
  } catch {
    // SyntaxError: no regular expression.
    return false;
  }
}

export class Redactor {
  readonly #names: ReadonlySet<string>;
  readonly #patterns: readonly RegExp[];

  /** Rules of which `isRedactRule` is true. */
  constructor(rules: readonly string[]) {
    const parsed = rules.map((rule) => patternOf(rule) ?? rule.toLowerCase());
    this.#names = new Set(parsed.filter((rule) => typeof rule === "string"));
    this.#patterns = parsed.filter((rule) => rule instanceof RegExp);
  }

  /** Are there rules at all? */
  get isActive(): boolean {
    return this.#names.size + this.#patterns.length > 0;
  }

  /** A pattern may take a time that is exponential in the length of the text; names never do. */
  get hasPatterns(): boolean {
    return this.#patterns.length > 0;
  }

  /** A whole line. One that is a JSON object stays one, unless a pattern matches across its syntax. */
  line(line: string): string {
    const json = this.#mayHide(line) ? jsonOfLine(line) : undefined;
    return this.text(json === undefined ? line : JSON.stringify(this.json(json)));
  }

  /** A text of any kind: the patterns alone. */
  text(text: string): string {
    let result = text;
    // A match of nothing hides nothing.
    for (const pattern of this.#patterns) result = result.replace(pattern, (match) => match && REDACTED);
    return result;
  }

  /** A value with its fields. Keys are texts too; a number is hidden where a pattern matches its digits. */
  json(value: JsonObject): Json {
    return this.#value(value, 0);
  }

  #value(value: Json, depth: number): Json {
    if (typeof value === "string") return this.text(value);
    if (typeof value === "number") return this.text(String(value)) === String(value) ? value : REDACTED;
    if (typeof value !== "object" || value === null) return value;
    if (depth === DEPTH_MAX) return REDACTED;
    if (!isObject(value)) return value.map((item) => this.#value(item, depth + 1));
    return Object.fromEntries(
      Object.entries(value).map(([key, field]) => [
        this.text(key),
        this.#names.has(key.toLowerCase()) ? REDACTED : this.#value(field, depth + 1),
      ]),
    );
  }

  /**
   * False for a line that shows no name of a rule and no escape that could hide one: it keeps its very bytes. A pattern
   * may match a value from its start to its end, which only the value shows.
   */
  #mayHide(line: string): boolean {
    if (this.hasPatterns) return true;
    if (this.#names.size === 0) return false;
    if (line.includes("\\")) return true;
    const lower = line.toLowerCase();
    return [...this.#names].some((name) => lower.includes(name));
  }
}
