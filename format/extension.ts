/**
 * X.509 extensions: their list, and the two that a chain's validity depends on. Source: RFC 5280 §4.1, §4.2.1.3,
 * §4.2.1.9.
 */
import {
  children,
  type DerElement,
  decodeInteger,
  decodeOid,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeOid,
  expectTag,
  readElement,
  Tag,
} from "./der.ts";
import { at, mismatch } from "./failure.ts";

export const BASIC_CONSTRAINTS = "2.5.29.19";
export const KEY_USAGE = "2.5.29.15";

export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  /** DER, as the extension's own definition has it. */
  readonly value: Uint8Array;
}

export interface BasicConstraints {
  readonly ca: boolean;
  /** How many certificate authorities may follow, at most; undefined: any number. */
  readonly pathLength: number | undefined;
}

/** Bits of the key usage, RFC 5280 §4.2.1.3: bit 0 is the first byte's highest. */
export const KeyUsage = {
  DigitalSignature: 0,
  NonRepudiation: 1,
  KeyCertSign: 5,
  CrlSign: 6,
} as const;

const TRUE = 0xff;

/** The `Extensions` sequence. Throws E_DER, also when an extension comes twice. */
export function decodeExtensions(sequence: DerElement): Extension[] {
  const seen = new Set<string>();
  return children(expectTag(sequence, Tag.Sequence, "extensions")).map((element) => {
    const [id, ...rest] = children(expectTag(element, Tag.Sequence, "an extension"));
    const oid = decodeOid(expectTag(id, Tag.ObjectIdentifier, "an extension's identifier"));
    if (seen.has(oid)) throw mismatch("E_DER", at(element.offset), `extension ${oid} again`, "it once");
    seen.add(oid);
    const flag = rest[0]?.tag === Tag.Boolean ? rest.shift() : undefined;
    const value = expectTag(rest[0], Tag.OctetString, `extension ${oid}: its value`, element.offset);
    if (rest.length > 1) throw mismatch("E_DER", at(element.offset), "more elements", "an extension's end");
    return { oid, critical: flag !== undefined && decodeTrue(flag), value: value.contents };
  });
}

/** X.690 §11.1, §11.5: a BOOLEAN with the default false is there only to say true, and that is 0xFF. */
function decodeTrue({ contents, offset }: DerElement): true {
  if (contents.length === 1 && contents[0] === TRUE) return true;
  throw mismatch("E_DER", at(offset), "another boolean", "true, or none");
}

export function encodeExtensions(extensions: readonly Extension[]): Uint8Array {
  const elements = extensions.map(({ oid, critical, value }) =>
    encodeElement(
      Tag.Sequence,
      encodeOid(oid),
      ...(critical ? [encodeElement(Tag.Boolean, Uint8Array.of(TRUE))] : []),
      encodeElement(Tag.OctetString, value),
    ),
  );
  return encodeElement(Tag.Sequence, ...elements);
}

/** Throws E_DER; path lengths over 255 are refused. */
export function decodeBasicConstraints(value: Uint8Array): BasicConstraints {
  const fields = children(only(value, Tag.Sequence, "basicConstraints"));
  const ca = fields[0]?.tag === Tag.Boolean && decodeTrue(fields.shift() as DerElement);
  const [length, extra] = fields;
  if (length === undefined) return { ca, pathLength: undefined };
  const digits = decodeInteger(expectTag(length, Tag.Integer, "a path length"));
  if (extra !== undefined || digits.length > 1) {
    throw mismatch("E_DER", "basicConstraints", "more", "a path length of 0 to 255");
  }
  return { ca, pathLength: digits[0] ?? 0 };
}

/** Critical, as RFC 5280 §4.2.1.9 asks for. `pathLength` is 0 to 255. */
export function encodeBasicConstraints({ ca, pathLength }: BasicConstraints): Extension {
  const fields = [
    ...(ca ? [encodeElement(Tag.Boolean, Uint8Array.of(TRUE))] : []),
    ...(pathLength === undefined ? [] : [encodeInteger(Uint8Array.of(pathLength))]),
  ];
  return { oid: BASIC_CONSTRAINTS, critical: true, value: encodeElement(Tag.Sequence, ...fields) };
}

/** The bits that are set. Throws E_DER. */
export function decodeKeyUsage(value: Uint8Array): ReadonlySet<number> {
  const [unused, ...bytes] = only(value, Tag.BitString, "keyUsage").contents;
  if (unused === undefined || unused > 7 || bytes.length < 1 || bytes.length > 2) {
    throw mismatch("E_DER", "keyUsage", "another bit string", "one of 1 to 16 bits");
  }
  const count = bytes.length * 8 - unused;
  const bits = Array.from({ length: count }, (_, bit) => bit);
  return new Set(bits.filter((bit) => ((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1));
}

/** Critical; `bits` are of KeyUsage. X.690 §11.2.2: bits behind the last one that is set are left out. */
export function encodeKeyUsage(bits: readonly number[]): Extension {
  const byte = bits.reduce((sum, bit) => sum | (0x80 >> bit), 0);
  const value = encodeBits(Uint8Array.of(byte), 7 - Math.max(...bits));
  return { oid: KEY_USAGE, critical: true, value };
}

/** The one element that an extension's value is. */
function only(value: Uint8Array, tag: number, what: string): DerElement {
  const element = expectTag(readElement(value), tag, what);
  if (element.bytes.length === value.length) return element;
  throw mismatch("E_DER", what, `${value.length - element.bytes.length} more bytes`, "its end");
}
