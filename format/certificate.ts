/**
 * X.509 certificates, as far as describing a signer and verifying a chain needs. Source: RFC 5280 §4.1.
 */
import {
  children,
  type DerElement,
  decodeBits,
  decodeOid,
  decodeTime,
  encodeElement,
  encodeOid,
  expectTag,
  readElement,
  Tag,
} from "./der.ts";
import { decodeExtensions, type Extension } from "./extension.ts";
import { at, CloisterError, mismatch } from "./failure.ts";
import { toHex } from "./struct.ts";

export type Curve = "P-256" | "P-384" | "P-521";

export interface Certificate {
  readonly der: Uint8Array;
  /** What the issuer signed: the first element, DER. */
  readonly tbs: Uint8Array;
  /** 1 to 3. */
  readonly version: number;
  /** In the certificate's order. */
  readonly issuer: readonly Attribute[];
  readonly subject: readonly Attribute[];
  /** The same as DER: what is compared, byte for byte. */
  readonly issuerDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  /** OpenSSL's long name (`ecdsa-with-SHA384`), or the dotted number. */
  readonly signatureAlgorithm: string;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** By the issuer, over `tbs`; DER. */
  readonly signature: Uint8Array;
  readonly publicKey: PublicKey;
  readonly extensions: readonly Extension[];
}

/** `name` is OpenSSL's long name, or the dotted number. */
export interface Attribute {
  readonly name: string;
  readonly value: string;
}

export interface PublicKey {
  /** undefined: not an elliptic curve key, or another curve. */
  readonly curve: Curve | undefined;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
}

/** OpenSSL's long names (`objects.txt`) of what RFC 5280 §4.1.2.4 and appendix A name. */
const ATTRIBUTES: Readonly<Record<string, string>> = {
  "2.5.4.3": "commonName",
  "2.5.4.4": "surname",
  "2.5.4.5": "serialNumber",
  "2.5.4.6": "countryName",
  "2.5.4.7": "localityName",
  "2.5.4.8": "stateOrProvinceName",
  "2.5.4.9": "streetAddress",
  "2.5.4.10": "organizationName",
  "2.5.4.11": "organizationalUnitName",
  "2.5.4.12": "title",
  "2.5.4.41": "name",
  "2.5.4.42": "givenName",
  "2.5.4.43": "initials",
  "2.5.4.44": "generationQualifier",
  "2.5.4.46": "dnQualifier",
  "2.5.4.65": "pseudonym",
  "0.9.2342.19200300.100.1.1": "userId",
  "0.9.2342.19200300.100.1.25": "domainComponent",
  "1.2.840.113549.1.9.1": "emailAddress",
};

/** RFC 5758 §3.2, RFC 4055 §5, RFC 8410 §3. */
export const SIGNATURE_ALGORITHMS: Readonly<Record<string, string>> = {
  "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
  "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
  "1.2.840.10045.4.3.4": "ecdsa-with-SHA512",
  "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
  "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
  "1.2.840.113549.1.1.13": "sha512WithRSAEncryption",
  "1.3.101.112": "ED25519",
};

/** RFC 5480 §2.1.1. */
const EC_PUBLIC_KEY = "1.2.840.10045.2.1";
const CURVES: Readonly<Record<string, Curve>> = {
  "1.2.840.10045.3.1.7": "P-256",
  "1.3.132.0.34": "P-384",
  "1.3.132.0.35": "P-521",
};

/** [0] EXPLICIT, constructed: the version, which version 1 leaves out. */
export const VERSION_TAG = 0xa0;
/** [1] and [2] IMPLICIT: identifiers that nobody uses, issuer's and subject's. */
const UNIQUE_ID_TAGS: readonly number[] = [0x81, 0x82];
/** [3] EXPLICIT, constructed. */
export const EXTENSIONS_TAG = 0xa3;

/** Nothing is verified. Throws E_DER with the byte offset. */
export function decodeCertificate(der: Uint8Array): Certificate {
  const certificate = expectTag(readElement(der), Tag.Sequence, "a certificate");
  if (certificate.bytes.length !== der.length) {
    const extra = der.length - certificate.bytes.length;
    throw mismatch("E_DER", "certificate", `${extra} more bytes`, "its end");
  }
  const [tbs, algorithm, signature, more] = children(certificate);
  const fields = children(expectTag(tbs, Tag.Sequence, "tbsCertificate"));
  const version = fields[0]?.tag === VERSION_TAG ? decodeVersion(fields.shift()) : 1;
  const [serial, inner, issuerField, validity, subjectField, publicKey, ...rest] = fields;
  expectTag(serial, Tag.Integer, "serialNumber");
  const issuer = expectTag(issuerField, Tag.Sequence, "issuer");
  const subject = expectTag(subjectField, Tag.Sequence, "subject");
  const { oid, bytes } = decodeAlgorithm(algorithm, "signatureAlgorithm");
  if (toHex(bytes) !== toHex(decodeAlgorithm(inner, "signature").bytes)) {
    throw mismatch("E_DER", "signatureAlgorithm", oid, "the algorithm that tbsCertificate names");
  }
  if (more !== undefined) throw mismatch("E_DER", at(more.offset), "another element", "a certificate's end");
  const [notBefore, notAfter] = decodeValidity(validity);
  return {
    der,
    tbs: (tbs as DerElement).bytes,
    version,
    issuer: decodeName(issuer),
    subject: decodeName(subject),
    issuerDer: issuer.bytes,
    subjectDer: subject.bytes,
    signatureAlgorithm: SIGNATURE_ALGORITHMS[oid] ?? oid,
    notBefore,
    notAfter,
    signature: decodeBits(expectTag(signature, Tag.BitString, "signatureValue")),
    publicKey: decodePublicKey(expectTag(publicKey, Tag.Sequence, "subjectPublicKeyInfo")),
    extensions: decodeTail(rest),
  };
}

/** INTEGER 0 is version 1. */
function decodeVersion(element: DerElement | undefined): number {
  const [number] = children(expectTag(element, VERSION_TAG, "version"));
  const [value, more] = expectTag(number, Tag.Integer, "version").contents;
  if (value !== undefined && value <= 2 && more === undefined) return value + 1;
  throw mismatch("E_DER", "version", `${value}`, "0 to 2");
}

function decodeValidity(element: DerElement | undefined): [number, number] {
  const [notBefore, notAfter] = children(expectTag(element, Tag.Sequence, "validity"));
  if (notBefore !== undefined && notAfter !== undefined) return [decodeTime(notBefore), decodeTime(notAfter)];
  throw mismatch("E_DER", "validity", "fewer times", "two");
}

/** What may follow the public key. */
function decodeTail(elements: readonly DerElement[]): Extension[] {
  const [last, more] = elements.filter(({ tag }) => !UNIQUE_ID_TAGS.includes(tag));
  if (last === undefined) return [];
  const [sequence, extra] = children(expectTag(last, EXTENSIONS_TAG, "extensions"));
  const wrong = more ?? extra;
  if (wrong !== undefined)
    throw mismatch("E_DER", at(wrong.offset), "another element", "the extensions' end");
  return decodeExtensions(expectTag(sequence, Tag.Sequence, "extensions", last.offset));
}

/** The first certificate of a PEM file: RFC 7468 §5. DER. Throws E_DER. */
export function decodePem(pem: Uint8Array): Uint8Array {
  const text = new TextDecoder("latin1").decode(pem);
  const base64 = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/.exec(text)?.[1];
  if (base64 === undefined) throw mismatch("E_DER", "PEM", "no certificate", "-----BEGIN CERTIFICATE-----");
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch (cause) {
    throw new CloisterError("E_DER", "PEM: got text that is not base64, expected a certificate", { cause });
  }
}

function decodeAlgorithm(
  element: DerElement | undefined,
  what: string,
): { oid: string; parameters: DerElement | undefined; bytes: Uint8Array } {
  const sequence = expectTag(element, Tag.Sequence, what);
  const [id, parameters] = children(sequence);
  const oid = decodeOid(expectTag(id, Tag.ObjectIdentifier, `${what} identifier`));
  return { oid, parameters, bytes: sequence.bytes };
}

function decodePublicKey(element: DerElement): PublicKey {
  const { oid, parameters } = decodeAlgorithm(children(element)[0], "public key algorithm");
  const named = oid === EC_PUBLIC_KEY && parameters?.tag === Tag.ObjectIdentifier;
  return { curve: named ? CURVES[decodeOid(parameters)] : undefined, spki: element.bytes };
}

/** RFC 5280 §4.1.2.4: a sequence of sets of attribute and value. */
function decodeName(name: DerElement): Attribute[] {
  return children(name)
    .flatMap((set) => children(expectTag(set, Tag.Set, "relative distinguished name")))
    .map((pair) => {
      const [type, value] = children(expectTag(pair, Tag.Sequence, "attribute"));
      const oid = decodeOid(expectTag(type, Tag.ObjectIdentifier, "attribute type"));
      if (value === undefined) throw mismatch("E_DER", `attribute ${oid}`, "nothing", "a value");
      return { name: ATTRIBUTES[oid] ?? oid, value: decodeString(value) };
    });
}

/**
 * Attributes by OpenSSL's long names. RFC 5280 appendix A: a country is a PrintableString; RFC 5280 §4.1.2.4: all others
 * are UTF8Strings. Throws TypeError for a name that has no number here.
 */
export function encodeName(attributes: readonly Attribute[]): Uint8Array {
  const sets = attributes.map(({ name, value }) => {
    const oid = Object.keys(ATTRIBUTES).find((key) => ATTRIBUTES[key] === name);
    if (oid === undefined) throw new TypeError(`got the attribute ${name}, expected one with a known number`);
    const tag = name === "countryName" ? Tag.PrintableString : Tag.Utf8String;
    const text = encodeElement(tag, new TextEncoder().encode(value));
    return encodeElement(Tag.Set, encodeElement(Tag.Sequence, encodeOid(oid), text));
  });
  return encodeElement(Tag.Sequence, ...sets);
}

function decodeString({ tag, contents }: DerElement): string {
  switch (tag) {
    case Tag.Utf8String:
    case Tag.PrintableString:
    case Tag.Ia5String:
      return new TextDecoder().decode(contents);
    case Tag.TeletexString:
      return new TextDecoder("latin1").decode(contents);
    case Tag.BmpString:
      return new TextDecoder("utf-16be").decode(contents);
    default:
      return `#${toHex(contents)}`;
  }
}
