/**
 * What cloister's runtime puts into `user_data` of the documents at ATTESTATION_PATH: which keys the enclave made for
 * its connections. The layout is ours, and versioned.
 */
import { mismatch } from "./failure.ts";
import { concat, offsets, toHex } from "./struct.ts";

/** Begins every binding, so that no other user data are taken for one. */
const MAGIC = new TextEncoder().encode("cloister");
const VERSION = 1;
/** SHA-256, bytes. */
const HASH_SIZE = 32;

const AT = offsets(
  "binding",
  {
    magic: 8, //            "cloister"
    version: 1, //          1
    tlsKey: 32, //     SHA-256 of the TLS key's SubjectPublicKeyInfo, DER; zeros: no TLS in this enclave
    messageKey: 32, // SHA-256 of the document's public_key, a key configuration (ohttp.ts); zeros: none
  },
  73,
);
export const BINDING_SIZE = AT.messageKey + HASH_SIZE;

/** SHA-256 hashes of 32 bytes each; null: the enclave has no such key. */
export interface Binding {
  readonly tlsKey: Uint8Array | null;
  readonly messageKey: Uint8Array | null;
}

export function encodeBinding({ tlsKey, messageKey }: Binding): Uint8Array {
  const none = new Uint8Array(HASH_SIZE);
  const bytes = concat([MAGIC, Uint8Array.of(VERSION), tlsKey ?? none, messageKey ?? none]);
  decodeBinding(bytes);
  return bytes;
}

/** Throws E_ATTESTATION_BINDING for anything else than a binding of this version. Hashes are copies. */
export function decodeBinding(userData: Uint8Array | null): Binding {
  if (userData === null || !isBinding(userData)) {
    throw wrong(
      userData === null ? "none" : toHex(userData.subarray(0, 16)) || "0 bytes",
      "cloister's binding",
    );
  }
  const version = userData[AT.version];
  if (version !== VERSION) throw wrong(`a binding of version ${version}`, `version ${VERSION}`);
  if (userData.length !== BINDING_SIZE) throw wrong(`${userData.length} bytes`, `${BINDING_SIZE}`);
  return { tlsKey: hashAt(userData, AT.tlsKey), messageKey: hashAt(userData, AT.messageKey) };
}

function hashAt(bytes: Uint8Array, offset: number): Uint8Array | null {
  const hash = bytes.slice(offset, offset + HASH_SIZE);
  return hash.some((byte) => byte !== 0) ? hash : null;
}

/** Whether user data begin as a binding, of whatever version: what an app must not have signed. */
export function isBinding(userData: Uint8Array): boolean {
  return MAGIC.every((byte, index) => userData[index] === byte);
}

/** What a binding has of a key: SHA-256 of its encoding. */
export async function hashKey(key: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", new Uint8Array(key)));
}

function wrong(got: string, expected: string): Error {
  return mismatch("E_ATTESTATION_BINDING", "user data", got, expected);
}
