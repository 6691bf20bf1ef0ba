/**
 * ECDSA by WebCrypto, and its two forms of signature: r ‖ s of fixed size (IEEE P1363: COSE and WebCrypto) and DER
 * (RFC 3279 §2.2.3: X.509). A signature (r, s) has a twin (r, n - s): who knows one knows both, so neither the bytes of
 * a signed document nor their hash are an identity.
 */
import type { Curve, PublicKey } from "./certificate.ts";
import { children, decodeInteger, encodeElement, encodeInteger, expectTag, readElement, Tag } from "./der.ts";
import { mismatch } from "./failure.ts";
import { concat } from "./struct.ts";

/** `size`: of r and of s, bytes; `hash`: the one that AWS pairs with the curve, as RFC 9053 §2.1 recommends. */
export const CURVES: Readonly<Record<Curve, { readonly size: number; readonly hash: string }>> = {
  "P-256": { size: 32, hash: "SHA-256" },
  "P-384": { size: 48, hash: "SHA-384" },
  "P-521": { size: 66, hash: "SHA-512" },
};

/** Whether `key` made this signature (r ‖ s) of `data`, hashed as its curve asks for. */
export async function verifyEcdsa(key: PublicKey, signature: Uint8Array, data: Uint8Array): Promise<boolean> {
  if (key.curve === undefined) return false;
  const { size, hash } = CURVES[key.curve];
  if (signature.length !== 2 * size) return false;
  const { subtle } = globalThis.crypto;
  const named = { name: "ECDSA", namedCurve: key.curve };
  let imported: CryptoKey;
  try {
    imported = await subtle.importKey("spki", new Uint8Array(key.spki), named, false, ["verify"]);
  } catch {
    // A point that is not on the curve: no signature can be its.
    return false;
  }
  const parameters = { name: "ECDSA", hash };
  return subtle.verify(parameters, imported, new Uint8Array(signature), new Uint8Array(data));
}

/** r ‖ s of `data`, hashed as the key's curve asks for. `key`: a private ECDSA key that may sign. */
export async function signEcdsa(key: CryptoKey, data: Uint8Array): Promise<Uint8Array> {
  const { hash } = CURVES[curveOf(key)];
  const parameters = { name: "ECDSA", hash };
  return new Uint8Array(await globalThis.crypto.subtle.sign(parameters, key, new Uint8Array(data)));
}

/** Throws TypeError for a key that is not ECDSA's. */
export function curveOf(key: CryptoKey): Curve {
  const { name, namedCurve } = key.algorithm as EcKeyAlgorithm;
  if (name === "ECDSA" && Object.hasOwn(CURVES, namedCurve)) return namedCurve as Curve;
  throw new TypeError(`got a key for ${name}, expected one for ECDSA`);
}

/** r ‖ s from X.509's form. Throws E_DER, also for numbers longer than the curve's. */
export function decodeEcdsaSignature(der: Uint8Array, curve: Curve): Uint8Array {
  const { size } = CURVES[curve];
  const sequence = expectTag(readElement(der), Tag.Sequence, "a signature");
  const numbers = children(sequence).map((n) => decodeInteger(expectTag(n, Tag.Integer, "an integer")));
  const fits = numbers.length === 2 && numbers.every(({ length }) => length > 0 && length <= size);
  if (!fits || sequence.bytes.length !== der.length) {
    throw mismatch("E_DER", "signature", "something else", `two numbers of 1 to ${size} bytes`);
  }
  return concat(numbers.flatMap((number) => [new Uint8Array(size - number.length), number]));
}

/** X.509's form of r ‖ s. */
export function encodeEcdsaSignature(signature: Uint8Array): Uint8Array {
  const half = signature.length / 2;
  const numbers = [signature.subarray(0, half), signature.subarray(half)];
  return encodeElement(Tag.Sequence, ...numbers.map(encodeInteger));
}
