/**
 * JSON from elsewhere, read field by field: a wrong one is named by its path, with what was there and what should be.
 */
import { type ErrorCode, mismatch } from "./errors.ts";

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

export type JsonObject = { readonly [key: string]: Json };

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** One value of a parsed document. Its readers throw a CloisterError of the document's code. */
export class JsonNode {
  readonly #code: ErrorCode;
  readonly #value: unknown;
  readonly #path: string;

  private constructor(code: ErrorCode, value: unknown, path: string) {
    this.#code = code;
    this.#value = value;
    this.#path = path;
  }

  /** `name` is the document's, for messages. Throws when the bytes are not UTF-8 or not JSON. */
  static parse(code: ErrorCode, name: string, bytes: Uint8Array): JsonNode {
    let text: string;
    try {
      text = utf8.decode(bytes);
    } catch {
      throw mismatch(code, name, "bytes that are not UTF-8", "JSON in UTF-8");
    }
    try {
      return new JsonNode(code, JSON.parse(text), name);
    } catch (error) {
      throw mismatch(code, name, `${describe(text)} (${(error as Error).message})`, "JSON");
    }
  }

  /** A field of this object; an absent one is a node too, whose readers throw. */
  get(key: string): JsonNode {
    const object = this.object();
    const path = this.#path.includes(": ") ? `${this.#path}.${key}` : `${this.#path}: ${key}`;
    return new JsonNode(this.#code, Object.hasOwn(object, key) ? object[key] : undefined, path);
  }

  get present(): boolean {
    return this.#value !== undefined;
  }

  object(): JsonObject {
    if (isObject(this.#value)) return this.#value;
    throw this.wrong("an object");
  }

  items(): JsonNode[] {
    if (!Array.isArray(this.#value)) throw this.wrong("an array");
    return this.#value.map((item: unknown, i) => new JsonNode(this.#code, item, `${this.#path}[${i}]`));
  }

  string(): string {
    if (typeof this.#value === "string") return this.#value;
    throw this.wrong("a string");
  }

  boolean(): boolean {
    if (typeof this.#value === "boolean") return this.#value;
    throw this.wrong("true or false");
  }

  /** One of these strings. */
  choice<const C extends string>(choices: readonly C[]): C {
    const found = choices.find((choice) => choice === this.#value);
    if (found !== undefined) return found;
    throw this.wrong(choices.join(" | "));
  }

  integer(least: number, most: number): number {
    const value = this.#value;
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
    throw this.wrong(`${least}..${most}`);
  }

  /** Milliseconds: finite, not negative, fractions allowed. */
  milliseconds(): number {
    const value = this.#value;
    if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value;
    throw this.wrong("milliseconds");
  }

  /** Finite, of either sign. */
  number(): number {
    const value = this.#value;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.wrong("a number");
  }

  /** Any value that is there, as it is. */
  any(): Json {
    if (this.present) return this.#value as Json;
    throw this.wrong("a value");
  }

  /** No fields but these. */
  only(keys: readonly string[]): void {
    const unknown = Object.keys(this.object()).find((key) => !keys.includes(key));
    if (unknown !== undefined) throw this.get(unknown).wrong("no such key");
  }

  /** The error that says what this should have been. */
  wrong(expected: string): Error {
    return mismatch(this.#code, this.#path, describe(this.#value), expected);
  }
}

/** Short, and never deep: a hostile document may nest as far as it is long. */
function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (isObject(value)) return "an object";
  const text = typeof value === "number" ? `${value}` : JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
