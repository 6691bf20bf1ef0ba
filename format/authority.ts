/**
 * A certificate authority: X.509 version 3 certificates signed by WebCrypto. Source: RFC 5280 §4.1. What it issues are
 * the development roots of emulated enclaves, never anything that the verifier trusts by itself.
 */
import {
  type Attribute,
  EXTENSIONS_TAG,
  encodeName,
  SIGNATURE_ALGORITHMS,
  VERSION_TAG,
} from "./certificate.ts";
import { encodeBits, encodeElement, encodeInteger, encodeOid, encodeTime, Tag } from "./der.ts";
import { CURVES, curveOf, encodeEcdsaSignature, signEcdsa } from "./ecdsa.ts";
import { type Extension, encodeExtensions } from "./extension.ts";

export interface CertificateRequest {
  /** Big-endian, 1 to 20 bytes, not zero: RFC 5280 §4.1.2.2. */
  readonly serial: Uint8Array;
  /** By OpenSSL's long attribute names; a root's issuer is its subject. */
  readonly issuer: readonly Attribute[];
  readonly subject: readonly Attribute[];
  /** Unix milliseconds, cut to seconds; both ends are valid. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** The subject's public key: SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
  readonly extensions: readonly Extension[];
}

/** `AlgorithmIdentifier` of ECDSA without parameters, RFC 5758 §3.2, by the hash that goes with the key's curve. */
function algorithmOf(key: CryptoKey): Uint8Array {
  const name = `ecdsa-with-${CURVES[curveOf(key)].hash.replace("-", "")}`;
  const oid = Object.keys(SIGNATURE_ALGORITHMS).find((id) => SIGNATURE_ALGORITHMS[id] === name);
  if (oid === undefined) throw new Error(`BUG: no number for ${name}`);
  return encodeElement(Tag.Sequence, encodeOid(oid));
}

/** The certificate, DER. `key`: the issuer's private ECDSA key. Nothing of the request is judged. */
export async function issueCertificate(request: CertificateRequest, key: CryptoKey): Promise<Uint8Array> {
  const algorithm = algorithmOf(key);
  const validity = [encodeTime(request.notBefore), encodeTime(request.notAfter)];
  const tbs = encodeElement(
    Tag.Sequence,
    encodeElement(VERSION_TAG, encodeInteger(Uint8Array.of(2))),
    encodeInteger(request.serial),
    algorithm,
    encodeName(request.issuer),
    encodeElement(Tag.Sequence, ...validity),
    encodeName(request.subject),
    request.spki,
    encodeElement(EXTENSIONS_TAG, encodeExtensions(request.extensions)),
  );
  const signature = encodeEcdsaSignature(await signEcdsa(key, tbs));
  return encodeElement(Tag.Sequence, tbs, algorithm, encodeBits(signature));
}

/** A fresh P-384 key pair, as Nitro's own chain has at every step. `extractable` is of the private key. */
export async function createKeyPair(extractable: boolean): Promise<CryptoKeyPair> {
  const algorithm = { name: "ECDSA", namedCurve: "P-384" };
  return globalThis.crypto.subtle.generateKey(algorithm, extractable, ["sign", "verify"]);
}

/** A public key's SubjectPublicKeyInfo, DER. */
export async function exportSpki(key: CryptoKey): Promise<Uint8Array> {
  return new Uint8Array(await globalThis.crypto.subtle.exportKey("spki", key));
}
