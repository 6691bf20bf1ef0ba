/**
 * COSE_Sign1 with ECDSA, the envelope of attestation documents and of an EIF's signature. Source: RFC 9052 §4.2, §4.4;
 * algorithms RFC 9053 §2.1. Signatures are r ‖ s, each left-padded to the curve's size.
 */
import { CborTag, type CborValue, decodeCbor, encodeCbor } from "./cbor.ts";
import type { Curve, PublicKey } from "./certificate.ts";
import { curveOf, signEcdsa, verifyEcdsa } from "./ecdsa.ts";
import { type CloisterError, mismatch } from "./failure.ts";

export const COSE_SIGN1_TAG = 18;
/** Header label of the algorithm. */
const ALG = 1;

/** By COSE algorithm number: RFC 9053 §2.1. Only the curve that AWS pairs with each is accepted. */
export const ES384 = -35;
const CURVES: ReadonlyMap<number, Curve> = new Map([
  [-7, "P-256"],
  [ES384, "P-384"],
  [-36, "P-521"],
]);

export interface CoseSign1 {
  /** The protected header as signed: an encoded map. */
  readonly protectedHeader: Uint8Array;
  /** COSE algorithm number from the protected header: -7 ES256, -35 ES384, -36 ES512. */
  readonly algorithm: number;
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

/** Tagged or not. The unprotected header says nothing that anyone should trust, and is dropped. Throws E_CBOR, E_COSE. */
export function decodeCoseSign1(bytes: Uint8Array): CoseSign1 {
  const item = decodeCbor(bytes);
  const array = item instanceof CborTag && item.tag === COSE_SIGN1_TAG ? item.value : item;
  if (!Array.isArray(array) || array.length !== 4)
    throw wrong("COSE_Sign1", array as CborValue, "an array of 4");
  const [protectedHeader, unprotected, payload, signature] = array as CborValue[];
  if (!(protectedHeader instanceof Uint8Array)) throw wrong("protected header", protectedHeader, "bytes");
  if (!(unprotected instanceof Map)) throw wrong("unprotected header", unprotected, "a map");
  if (!(payload instanceof Uint8Array)) throw wrong("payload", payload, "bytes");
  if (!(signature instanceof Uint8Array)) throw wrong("signature", signature, "bytes");
  const header = decodeCbor(protectedHeader);
  const algorithm = header instanceof Map ? header.get(ALG) : undefined;
  if (typeof algorithm !== "number")
    throw wrong("protected header", algorithm, "a map with an algorithm number");
  return { protectedHeader, algorithm, payload, signature };
}

/** Untagged, with an empty unprotected header, as AWS writes it. */
export function encodeCoseSign1(message: CoseSign1): Uint8Array {
  return encodeCbor([message.protectedHeader, new Map(), message.payload, message.signature]);
}

/** The encoded protected header that names this algorithm and nothing else. */
export function encodeProtectedHeader(algorithm: number): Uint8Array {
  return encodeCbor(new Map([[ALG, algorithm]]));
}

/** The bytes that are signed: RFC 9052 §4.4, Sig_structure without external data. */
export function signedBytes(message: Pick<CoseSign1, "protectedHeader" | "payload">): Uint8Array {
  return encodeCbor(["Signature1", message.protectedHeader, new Uint8Array(0), message.payload]);
}

/** Whether `key` made the signature. False too when algorithm, curve and signature size do not belong together. */
export async function verifyCoseSign1(message: CoseSign1, key: PublicKey): Promise<boolean> {
  if (key.curve === undefined || CURVES.get(message.algorithm) !== key.curve) return false;
  return verifyEcdsa(key, message.signature, signedBytes(message));
}

/** Sign a payload with a private ECDSA key, under the algorithm of its curve. */
export async function signCoseSign1(payload: Uint8Array, key: CryptoKey): Promise<CoseSign1> {
  const curve = curveOf(key);
  const algorithm = [...CURVES.keys()].find((number) => CURVES.get(number) === curve) as number;
  const message = { protectedHeader: encodeProtectedHeader(algorithm), algorithm, payload };
  return { ...message, signature: await signEcdsa(key, signedBytes(message)) };
}

function wrong(where: string, value: CborValue | undefined, expected: string): CloisterError {
  const got = Array.isArray(value) ? `an array of ${value.length}` : value === null ? "null" : typeof value;
  return mismatch("E_COSE", where, got, expected);
}
