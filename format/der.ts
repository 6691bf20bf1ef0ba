/**
 * DER, as far as X.509 certificates need it: tag, length, contents. Source: ITU-T X.690 §8, §10.
 */
import { at, mismatch } from "./failure.ts";

/** Universal tags, with the constructed bit where the type is always constructed. */
export const Tag = {
  Integer: 0x02,
  BitString: 0x03,
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
export function decodeTime(element: DerElement): number {
  const text = String.fromCharCode(...element.contents);
  const pattern =
    element.tag === Tag.UtcTime
      ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
      : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/;
  const [year = 0, month = 0, ...rest] = (pattern.exec(text) ?? []).slice(1).map(Number);
  const century = element.tag === Tag.GeneralizedTime ? 0 : year < 50 ? 2000 : 1900;
  const [day = 0, hour = 0, minute = 0, second = 0] = rest;
  const time = Date.UTC(century + year, month - 1, day, hour, minute, second);
  const date = new Date(time);
  const known = element.tag === Tag.UtcTime || element.tag === Tag.GeneralizedTime;
  // Date.UTC carries a 31st of February over into March.
  if (
    known &&
    date.getUTCMonth() === month - 1 &&
    date.getUTCDate() === day &&
    hour < 24 &&
    minute < 60 &&
    second < 60
  )
    return time;
  throw mismatch("E_DER", at(element.offset), JSON.stringify(text.slice(0, 20)), "a time in UTC");
}
