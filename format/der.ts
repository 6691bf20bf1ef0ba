/**
 * DER, as far as X.509 certificates need it: tag, length, contents. Source: ITU-T X.690 §8, §10.
 */
import { at, mismatch, quote } from "./failure.ts";
import { concat } from "./struct.ts";

/** Universal tags, with the constructed bit where the type is always constructed. */
export const Tag = {
  Boolean: 0x01,
  Integer: 0x02,
  BitString: 0x03,
  OctetString: 0x04,
  ObjectIdentifier: 0x06,
  Utf8String: 0x0c,
  PrintableString: 0x13,
  TeletexString: 0x14,
  Ia5String: 0x16,
  UtcTime: 0x17,
  GeneralizedTime: 0x18,
  BmpString: 0x1e,
  Sequence: 0x30,
  Set: 0x31,
} as const;

export interface DerElement {
  readonly tag: number;
  /** Of its first byte, from the start of the outermost input. */
  readonly offset: number;
  /** All of it, header included. */
  readonly bytes: Uint8Array;
  readonly contents: Uint8Array;
}

/** The element that `bytes` begins with; more may follow it. `base` is added to offsets in errors. Throws E_DER. */
export function readElement(bytes: Uint8Array, base = 0): DerElement {
  const [tag, first] = bytes;
  if (tag === undefined || first === undefined) {
    throw mismatch("E_DER", at(base), `${bytes.length} bytes`, "an element");
  }
  if ((tag & 0x1f) === 0x1f)
    throw mismatch("E_DER", at(base), `tag 0x${tag.toString(16)}`, "a tag of one byte");
  const { length, start } = first < 0x80 ? { length: first, start: 2 } : readLength(bytes, base);
  if (length > bytes.length - start) {
    throw mismatch("E_DER", at(base + 1), `length ${length}`, `at most ${bytes.length - start}`);
  }
  const end = start + length;
  return { tag, offset: base, bytes: bytes.subarray(0, end), contents: bytes.subarray(start, end) };
}

/** X.690 §8.1.3.5, §10.1: the long form, in as few bytes as it takes. Four bytes of length are more than any input. */
function readLength(bytes: Uint8Array, base: number): { length: number; start: number } {
  const count = (bytes[1] as number) & 0x7f;
  const digits = bytes.subarray(2, 2 + count);
  if (count < 1 || count > 4 || digits.length < count) {
    throw mismatch("E_DER", at(base + 1), `a length in ${count} bytes`, "1 to 4 bytes of length, all there");
  }
  const length = digits.reduce((sum, digit) => sum * 256 + digit, 0);
  if (length < 0x80 || digits[0] === 0)
    throw mismatch("E_DER", at(base + 1), `length ${length}`, "its shortest form");
  return { length, start: 2 + count };
}

/** The elements inside a constructed one, which they fill. Throws E_DER. */
export function children(parent: DerElement): DerElement[] {
  const elements: DerElement[] = [];
  const base = parent.offset + parent.bytes.length - parent.contents.length;
  for (let offset = 0; offset < parent.contents.length; ) {
    const element = readElement(parent.contents.subarray(offset), base + offset);
    elements.push(element);
    offset += element.bytes.length;
  }
  return elements;
}

/** The element, if it has this tag. Throws E_DER, naming `what` was looked for. */
export function expectTag(element: DerElement | undefined, tag: number, what: string, end = 0): DerElement {
  if (element?.tag === tag) return element;
  const got = element === undefined ? "nothing" : `tag 0x${element.tag.toString(16)}`;
  throw mismatch("E_DER", at(element?.offset ?? end), got, `${what} (tag 0x${tag.toString(16)})`);
}

/** Longer than any identifier in use; keeps the arithmetic below short. Bytes. */
const OID_MAX = 64;

/** Contents of an OBJECT IDENTIFIER in dotted form: X.690 §8.19. Throws E_DER. */
export function decodeOid({ contents, offset }: DerElement): string {
  const arcs: bigint[] = [];
  let arc = 0n;
  let ended = true;
  let broken = contents.length === 0 || contents.length > OID_MAX;
  for (const byte of contents.subarray(0, OID_MAX)) {
    broken ||= ended && byte === 0x80;
    arc = (arc << 7n) | BigInt(byte & 0x7f);
    ended = byte < 0x80;
    if (!ended) continue;
    arcs.push(arc);
    arc = 0n;
  }
  const [first, ...rest] = arcs;
  if (broken || !ended || first === undefined) {
    throw mismatch("E_DER", at(offset), "a broken object identifier", `arcs in 1 to ${OID_MAX} bytes`);
  }
  const root = first < 80n ? first / 40n : 2n;
  return [root, first - root * 40n, ...rest].join(".");
}

/** Contents of a BIT STRING of whole bytes: X.690 §8.6. Throws E_DER. */
export function decodeBits(element: DerElement): Uint8Array {
  if (element.contents[0] === 0) return element.contents.subarray(1);
  throw mismatch("E_DER", at(element.offset), "a bit string with unused bits", "whole bytes");
}

/** UTCTime or GeneralizedTime as certificates have it: RFC 5280 §4.1.2.5. Unix milliseconds. Throws E_DER. */
export function decodeTime({ tag, contents, offset }: DerElement): number {
  const text = String.fromCharCode(...contents.subarray(0, 20));
  const digits =
    tag === Tag.UtcTime ? /^(\d{2})(\d{10})Z$/ : tag === Tag.GeneralizedTime ? /^(\d{4})(\d{10})Z$/ : null;
  const [, yearText = "", rest = ""] = digits?.exec(text) ?? [];
  const century = tag === Tag.GeneralizedTime ? 0 : Number(yearText) < 50 ? 2000 : 1900;
  const year = century + Number(yearText);
  const [month = 0, day = 0, hour = 0, minute = 0, second = 0] = (rest.match(/../g) ?? []).map(Number);
  const time = Date.UTC(year, month - 1, day, hour, minute, second);
  const date = new Date(time);
  // Date.UTC takes 24 o'clock on a 31st of February for a day in March, and year 1 for 1901.
  const exact = date.getUTCFullYear() === year && date.getUTCDate() === day;
  if (exact && minute < 60 && second < 60) return time;
  throw mismatch("E_DER", at(offset), quote(text), "a time in UTC");
}

/** An element of these contents, which may come in pieces. */
export function encodeElement(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const length = contents.reduce((sum, piece) => sum + piece.length, 0);
  const digits: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  const head = length < 0x80 ? [tag, length] : [tag, 0x80 | digits.length, ...digits];
  return concat([Uint8Array.from(head), ...contents]);
}

/** X.690 §8.3: an INTEGER of this value, big-endian and not negative, in its shortest form. */
export function encodeInteger(magnitude: Uint8Array): Uint8Array {
  const first = magnitude.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? Uint8Array.of(0) : magnitude.subarray(first);
  const sign = (digits[0] as number) < 0x80 ? [] : [Uint8Array.of(0)];
  return encodeElement(Tag.Integer, ...sign, digits);
}

/** The big-endian value of an INTEGER that is not negative, without leading zeros: zero has no bytes. Throws E_DER. */
export function decodeInteger({ contents, offset }: DerElement): Uint8Array {
  const [first, second = 0] = contents;
  if (first === undefined || first >= 0x80 || (first === 0 && contents.length > 1 && second < 0x80)) {
    throw mismatch(
      "E_DER",
      at(offset),
      "a negative or padded integer",
      "one from 0 on, in its shortest form",
    );
  }
  return first === 0 ? contents.subarray(1) : contents;
}

/** X.690 §8.19: an OBJECT IDENTIFIER from its dotted form. */
export function encodeOid(oid: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = oid.split(".").map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const digits = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      digits.unshift(0x80 | (left % 128));
    }
    return digits;
  });
  return encodeElement(Tag.ObjectIdentifier, Uint8Array.from(bytes));
}

/** X.690 §8.6: a BIT STRING whose last byte has `unused` bits that do not count. */
export function encodeBits(bytes: Uint8Array, unused = 0): Uint8Array {
  return encodeElement(Tag.BitString, Uint8Array.of(unused), bytes);
}

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on; Unix milliseconds, cut to seconds. */
export function encodeTime(time: number): Uint8Array {
  const text = new Date(time)
    .toISOString()
    .replace(/\.\d+Z$|[-:T]/g, (cut) => (cut.endsWith("Z") ? "Z" : ""));
  const short = text < "2050";
  return encodeElement(
    short ? Tag.UtcTime : Tag.GeneralizedTime,
    new TextEncoder().encode(short ? text.slice(2) : text),
  );
}
