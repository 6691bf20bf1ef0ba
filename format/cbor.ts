/**
 * The CBOR that Nitro speaks: integers, byte and text strings, arrays, maps, tags, booleans, null. Source: RFC 8949 §3
 * and, for strictness, §4.2.1, save that map keys keep the order given: AWS's messages do not sort theirs.
 * Floats, undefined and other simple values are refused in both directions.
 */
import { at, CloisterError, mismatch, quote } from "./failure.ts";
import { concat } from "./struct.ts";

/** Integers are numbers while those are exact, else bigints. */
export type CborKey = number | bigint | string;
export type CborValue =
  | CborKey
  | boolean
  | null
  | Uint8Array
  | CborTag
  | readonly CborValue[]
  | ReadonlyMap<CborKey, CborValue>;

export class CborTag {
  readonly tag: number;
  readonly value: CborValue;

  constructor(tag: number, value: CborValue) {
    this.tag = tag;
    this.value = value;
  }
}

/** Arrays, maps and tags inside one another, at most. */
export const CBOR_DEPTH_MAX = 16;

/** RFC 8949 §3.1: the upper three bits of an item's first byte. */
const Major = { Unsigned: 0, Negative: 1, Bytes: 2, Text: 3, Array: 4, Map: 5, Tag: 6, Simple: 7 } as const;
/** RFC 8949 §3.3, as whole first bytes. */
const FALSE = 0xf4;
const TRUE = 0xf5;
const NULL = 0xf6;
const BREAK = 0xff;
/** RFC 8949 §3.2: additional information of an item of indefinite length. */
const INDEFINITE = 31;

/**
 * The value's shortest encoding. Throws RangeError or TypeError for what this subset does not have: fractions, integers
 * beyond 64 bits, ill-formed text, more than CBOR_DEPTH_MAX levels.
 */
export function encodeCbor(value: CborValue): Uint8Array {
  const pieces: Uint8Array[] = [];
  encodeItem(value, 0, pieces);
  return concat(pieces);
}

function encodeItem(value: CborValue, depth: number, pieces: Uint8Array[]): void {
  if (depth > CBOR_DEPTH_MAX) throw new RangeError(`CBOR: got more than ${CBOR_DEPTH_MAX} levels`);
  if (value === null) pieces.push(Uint8Array.of(NULL));
  else if (typeof value === "boolean") pieces.push(Uint8Array.of(value ? TRUE : FALSE));
  else if (typeof value === "number" || typeof value === "bigint") pieces.push(encodeInteger(value));
  else if (typeof value === "string") {
    if (!value.isWellFormed()) throw new TypeError("CBOR: got half a surrogate pair, expected Unicode text");
    const text = new TextEncoder().encode(value);
    pieces.push(encodeHead(Major.Text, BigInt(text.length)), text);
  } else if (value instanceof Uint8Array) pieces.push(encodeHead(Major.Bytes, BigInt(value.length)), value);
  else if (value instanceof CborTag) {
    pieces.push(encodeHead(Major.Tag, BigInt(value.tag)));
    encodeItem(value.value, depth + 1, pieces);
  } else if (value instanceof Map) {
    pieces.push(encodeHead(Major.Map, BigInt(value.size)));
    for (const pair of value as ReadonlyMap<CborKey, CborValue>) {
      for (const item of pair) encodeItem(item, depth + 1, pieces);
    }
  } else {
    const items = value as readonly CborValue[];
    pieces.push(encodeHead(Major.Array, BigInt(items.length)));
    for (const item of items) encodeItem(item, depth + 1, pieces);
  }
}

function encodeInteger(value: number | bigint): Uint8Array {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new RangeError(`CBOR: got ${value}, expected an exact integer; pass larger ones as bigint`);
  }
  const integer = BigInt(value);
  return integer < 0n ? encodeHead(Major.Negative, -1n - integer) : encodeHead(Major.Unsigned, integer);
}

function encodeHead(major: number, argument: bigint): Uint8Array {
  if (argument < 0n || argument >= 1n << 64n) throw new RangeError(`CBOR: got ${argument}, expected 64 bits`);
  if (argument < 24n) return Uint8Array.of((major << 5) | Number(argument));
  const power = [0, 1, 2, 3].find((n) => argument < 1n << BigInt(8 << n)) as number;
  const head = new Uint8Array(1 + (1 << power));
  head[0] = (major << 5) | (24 + power);
  let rest = argument;
  for (let i = head.length - 1; i > 0; i--) {
    head[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return head;
}

export interface CborDecodeOptions {
  /** Accept items of indefinite length too: one of many encodings of a value, so never where bytes are compared. */
  readonly indefinite?: boolean;
}

/**
 * The one item that `bytes` holds. Byte strings are views of the input. Throws E_CBOR with the byte offset for
 * integers or lengths not in their shortest form, lengths beyond the input, duplicate keys, keys other than integers
 * and text, invalid UTF-8, trailing bytes, and more than CBOR_DEPTH_MAX levels.
 */
export function decodeCbor(bytes: Uint8Array, options: CborDecodeOptions = {}): CborValue {
  const decoder = new Decoder(bytes, options.indefinite ?? false);
  const value = decoder.item(0);
  decoder.end();
  return value;
}

interface Head {
  readonly offset: number;
  readonly major: number;
  /** undefined: indefinite length. */
  readonly argument: bigint | undefined;
}

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #indefinite: boolean;
  #offset = 0;

  constructor(bytes: Uint8Array, indefinite: boolean) {
    this.#bytes = bytes;
    this.#indefinite = indefinite;
  }

  end(): void {
    const extra = this.#bytes.length - this.#offset;
    if (extra > 0) throw mismatch("E_CBOR", at(this.#offset), `${extra} more bytes`, "the end");
  }

  item(depth: number): CborValue {
    if (depth > CBOR_DEPTH_MAX) {
      throw mismatch("E_CBOR", at(this.#offset), "another level", `at most ${CBOR_DEPTH_MAX}`);
    }
    const simple = this.#simple();
    if (simple !== undefined) return simple;
    const head = this.#head();
    switch (head.major) {
      case Major.Unsigned:
        return toInteger(this.#definite(head));
      case Major.Negative:
        return toInteger(-1n - this.#definite(head));
      case Major.Bytes:
        return this.#byteString(head);
      case Major.Text:
        return this.#text(head);
      case Major.Array:
        return this.#array(head, depth);
      case Major.Map:
        return this.#map(head, depth);
      default:
        return new CborTag(this.#tag(head), this.item(depth + 1));
    }
  }

  #simple(): boolean | null | undefined {
    const byte = this.#bytes[this.#offset];
    if (byte === undefined || byte >>> 5 !== Major.Simple) return undefined;
    if (byte !== FALSE && byte !== TRUE && byte !== NULL) {
      throw mismatch("E_CBOR", at(this.#offset), `byte 0x${byte.toString(16)}`, "true, false or null");
    }
    this.#offset++;
    return byte === NULL ? null : byte === TRUE;
  }

  #head(): Head {
    const offset = this.#offset;
    const first = this.#take(1n)[0] as number;
    const major = first >>> 5;
    const info = first & 31;
    if (info < 24) return { offset, major, argument: BigInt(info) };
    if (info === INDEFINITE && this.#indefinite) return { offset, major, argument: undefined };
    if (info > 27) {
      throw mismatch("E_CBOR", at(offset), `additional information ${info}`, "a definite length or value");
    }
    const size = 1 << (info - 24);
    let argument = 0n;
    for (const byte of this.#take(BigInt(size))) argument = (argument << 8n) | BigInt(byte);
    const least = size === 1 ? 24n : 1n << BigInt(4 * size);
    if (argument < least) {
      throw mismatch("E_CBOR", at(offset), `${argument} in ${size} bytes`, "its shortest form");
    }
    return { offset, major, argument };
  }

  #definite(head: Head): bigint {
    if (head.argument !== undefined) return head.argument;
    throw mismatch("E_CBOR", at(head.offset), "an indefinite length", "a value");
  }

  #take(length: bigint): Uint8Array {
    const start = this.#offset;
    const left = this.#bytes.length - start;
    if (length > left) throw mismatch("E_CBOR", at(start), `${left} bytes`, `${length} more`);
    this.#offset += Number(length);
    return this.#bytes.subarray(start, this.#offset);
  }

  /** Whether item number `index` of an array or map follows; takes the break of an indefinite one. */
  #follows(head: Head, index: bigint): boolean {
    if (head.argument !== undefined) return index < head.argument;
    if (this.#bytes[this.#offset] !== BREAK) return true;
    this.#offset++;
    return false;
  }

  #chunks(head: Head): Uint8Array[] {
    if (head.argument !== undefined) return [this.#take(head.argument)];
    const chunks: Uint8Array[] = [];
    while (this.#follows(head, 0n)) {
      const chunk = this.#head();
      if (chunk.major !== head.major || chunk.argument === undefined) {
        throw mismatch("E_CBOR", at(chunk.offset), "another item", "a definite piece of this string");
      }
      chunks.push(this.#take(chunk.argument));
    }
    return chunks;
  }

  #byteString(head: Head): Uint8Array {
    const chunks = this.#chunks(head);
    return chunks.length === 1 ? (chunks[0] as Uint8Array) : concat(chunks);
  }

  #text(head: Head): string {
    try {
      // Each piece is UTF-8 on its own: no character may lie in two of them (RFC 8949 §3.2.3).
      return this.#chunks(head)
        .map((chunk) => utf8.decode(chunk))
        .join("");
    } catch (error) {
      if (error instanceof CloisterError) throw error;
      throw mismatch("E_CBOR", at(head.offset), "text that is not UTF-8", "UTF-8");
    }
  }

  #array(head: Head, depth: number): CborValue[] {
    const items: CborValue[] = [];
    for (let index = 0n; this.#follows(head, index); index++) items.push(this.item(depth + 1));
    return items;
  }

  #map(head: Head, depth: number): Map<CborKey, CborValue> {
    const map = new Map<CborKey, CborValue>();
    for (let index = 0n; this.#follows(head, index); index++) {
      const offset = this.#offset;
      const key = this.item(depth + 1);
      if (typeof key !== "string" && typeof key !== "number" && typeof key !== "bigint") {
        throw mismatch("E_CBOR", at(offset), "another kind of key", "an integer or text");
      }
      if (map.has(key)) throw mismatch("E_CBOR", at(offset), `key ${quote(`${key}`)} again`, "it once");
      map.set(key, this.item(depth + 1));
    }
    return map;
  }

  #tag(head: Head): number {
    const tag = toInteger(this.#definite(head));
    if (typeof tag === "number") return tag;
    throw mismatch("E_CBOR", at(head.offset), `tag ${tag}`, "at most 2^53 - 1");
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function toInteger(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
