/** What the certificates of emulated documents share: names, serial numbers, and the extensions that hardware's have. */
import { createHash, randomBytes } from "node:crypto";
import type { CertificateRequest } from "../../format/authority.ts";
import { children, decodeBits, encodeElement, expectTag, readElement, Tag } from "../../format/der.ts";
import { type Extension, encodeBasicConstraints, encodeKeyUsage, KeyUsage } from "../../format/extension.ts";

export const ORGANIZATION: CertificateRequest["subject"] = [
  { name: "organizationName", value: "cloister" },
  { name: "organizationalUnitName", value: "emulator" },
];

/** A document's time is taken before the certificate for it is made, and the verifier's clock may be slow. */
export const BACKDATED_MS = 60_000;

type Subject = Pick<CertificateRequest, "spki" | "extensions">;

/** RFC 5280 §4.1.2.2: positive, at most 20 bytes. */
export function serial(): Uint8Array {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return bytes;
}

/** Key and extensions of an authority. `issuer`: the issuer's SubjectPublicKeyInfo; undefined for a root. */
export function authority(
  spki: Uint8Array,
  issuer: Uint8Array | undefined,
  pathLength: number | undefined,
): Subject {
  const usage = [KeyUsage.DigitalSignature, KeyUsage.KeyCertSign, KeyUsage.CrlSign];
  const extensions = [
    encodeBasicConstraints({ ca: true, pathLength }),
    ...(issuer === undefined ? [] : [authorityKeyIdentifier(issuer)]),
    subjectKeyIdentifier(spki),
    encodeKeyUsage(usage),
  ];
  return { spki, extensions };
}

/** Key and extensions of the certificate whose key signs documents. */
export function leaf(spki: Uint8Array): Subject {
  const usage = [KeyUsage.DigitalSignature, KeyUsage.NonRepudiation];
  const extensions = [encodeBasicConstraints({ ca: false, pathLength: undefined }), encodeKeyUsage(usage)];
  return { spki, extensions };
}

/** RFC 5280 §4.2.1.2, method (1): SHA-1 of the key's bits. A name, not a security. */
function keyIdentifier(spki: Uint8Array): Uint8Array {
  const [, bits] = children(readElement(spki));
  return createHash("sha1")
    .update(decodeBits(expectTag(bits, Tag.BitString, "a public key")))
    .digest();
}

function subjectKeyIdentifier(spki: Uint8Array): Extension {
  const value = encodeElement(Tag.OctetString, keyIdentifier(spki));
  return { oid: "2.5.29.14", critical: false, value };
}

/** [0] IMPLICIT: keyIdentifier, RFC 5280 §4.2.1.1. */
const KEY_IDENTIFIER_TAG = 0x80;

function authorityKeyIdentifier(spki: Uint8Array): Extension {
  const value = encodeElement(Tag.Sequence, encodeElement(KEY_IDENTIFIER_TAG, keyIdentifier(spki)));
  return { oid: "2.5.29.35", critical: false, value };
}
