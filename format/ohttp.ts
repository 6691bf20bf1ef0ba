/**
 * Encrypted requests and responses: HPKE to a key that the enclave made. Source: RFC 9458 (Oblivious HTTP) §3.1, §4;
 * RFC 9180. One suite: X25519, HKDF-SHA256, AES-128-GCM, which WebCrypto has in browsers, Node, Deno and Bun.
 */
import {
  AEAD_AES_128_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  type KeyPair,
} from "hpke";
import { type CloisterError, mismatch } from "./failure.ts";
import { concat, offsets, viewOf } from "./struct.ts";

/** Where an enclave takes encrypted requests: POST. */
export const MESSAGE_PATH = "/.well-known/cloister/ohttp";
export const MESSAGE_REQUEST_TYPE = "message/ohttp-req";
export const MESSAGE_RESPONSE_TYPE = "message/ohttp-res";
/** RFC 9458 §5.3, §7.1: the problem type of a key that the enclave does not have (any more). */
export const KEY_PROBLEM = "https://iana.org/assignments/http-problem-types#ohttp-key";
/** Ours: of one encrypted request or response, bytes. Both sides hold it whole. */
export const MESSAGE_MAX = 4 * 1024 * 1024;

/** RFC 9180 §7: what the suite's numbers are. Sizes in bytes. */
const KEM_X25519 = 0x0020;
const HKDF_SHA256 = 0x0001;
const AES_128_GCM = 0x0001;
const KEY_SIZE = 32;
const AEAD_KEY_SIZE = 16;
const AEAD_NONCE_SIZE = 12;
/** max(Nn, Nk) of RFC 9458 §4.4. */
const SECRET_SIZE = 16;

const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM);
const kdf = KDF_HKDF_SHA256();
const aead = AEAD_AES_128_GCM();

/** RFC 9458 §3.1, big-endian; the length of the list of suites, and that one suite, 4 bytes. */
const CONFIG = offsets("key configuration", { id: 1, kem: 2, key: KEY_SIZE, length: 2, kdf: 2, aead: 2 }, 41);
const CONFIG_SIZE = 41;
/** RFC 9458 §4.3: what precedes the encapsulated key and the ciphertext. */
const HEADER = offsets("message header", { id: 1, kem: 2, kdf: 2, aead: 2 }, 7);
const HEADER_SIZE = 7;
/** Bytes of an encrypted request around its plaintext: header, encapsulated key, tag. */
export const REQUEST_OVERHEAD = HEADER_SIZE + KEY_SIZE + 16;

/** The enclave's half of a key. */
export interface MessageKey {
  /** 0 to 255. */
  readonly id: number;
  /** The key configuration: what documents have as `public_key`. */
  readonly config: Uint8Array;
  readonly pair: KeyPair<CryptoKey>;
}

/** A fresh key, its private half not extractable. */
export async function createMessageKey(id: number): Promise<MessageKey> {
  const pair = await suite.GenerateKeyPair(false);
  return { id, config: encodeKeyConfig(id, await suite.SerializePublicKey(pair.publicKey)), pair };
}

export function encodeKeyConfig(id: number, publicKey: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(CONFIG_SIZE);
  const view = viewOf(bytes);
  view.setUint8(CONFIG.id, id);
  view.setUint16(CONFIG.kem, KEM_X25519);
  bytes.set(publicKey, CONFIG.key);
  view.setUint16(CONFIG.length, 4);
  view.setUint16(CONFIG.kdf, HKDF_SHA256);
  view.setUint16(CONFIG.aead, AES_128_GCM);
  return bytes;
}

/** Throws E_MESSAGE for any other suite, or more than one. */
export function decodeKeyConfig(bytes: Uint8Array): { readonly id: number; readonly publicKey: Uint8Array } {
  if (bytes.length !== CONFIG_SIZE)
    throw wrong("key configuration", `${bytes.length} bytes`, `${CONFIG_SIZE}`);
  const id = viewOf(bytes).getUint8(CONFIG.id);
  const publicKey = bytes.slice(CONFIG.key, CONFIG.key + KEY_SIZE);
  const expected = encodeKeyConfig(id, publicKey);
  if (bytes.every((byte, index) => byte === expected[index])) return { id, publicKey };
  throw wrong("key configuration", "another suite", "X25519, HKDF-SHA256, AES-128-GCM");
}

export interface SealedRequest {
  readonly message: Uint8Array;
  /** The plaintext of the response to this very request. Rejects with E_MESSAGE. */
  open(response: Uint8Array): Promise<Uint8Array>;
}

/** Encrypt to the key of a configuration that is known to be the enclave's. Throws E_MESSAGE for a bad configuration. */
export async function sealRequest(config: Uint8Array, plaintext: Uint8Array): Promise<SealedRequest> {
  const { id, publicKey } = decodeKeyConfig(config);
  const header = encodeHeader(id);
  // X25519 has weak points, for which the agreement fails.
  const fail = () => wrong("key configuration", "a key that cannot be used", "a point of X25519");
  const key = await refuse(suite.DeserializePublicKey(publicKey), fail);
  const { encapsulatedSecret, ctx } = await refuse(suite.SetupSender(key, { info: infoOf(header) }), fail);
  const message = concat([header, encapsulatedSecret, await ctx.Seal(plaintext)]);
  const secret = await ctx.Export(RESPONSE_CONTEXT, SECRET_SIZE);
  return { message, open: (response) => openResponse(secret, encapsulatedSecret, response) };
}

export interface OpenedRequest {
  readonly plaintext: Uint8Array;
  /** 32 bytes that no other honest request has: what a replay is known by. */
  readonly encapsulated: Uint8Array;
  seal(response: Uint8Array): Promise<Uint8Array>;
}

/** The key that a message names. Throws E_MESSAGE for what is too short, or has another suite. */
export function messageKeyId(message: Uint8Array): number {
  if (message.length < REQUEST_OVERHEAD) {
    throw wrong("request", `${message.length} bytes`, `${REQUEST_OVERHEAD} at least`);
  }
  const id = viewOf(message).getUint8(HEADER.id);
  const expected = encodeHeader(id);
  if (expected.every((byte, index) => byte === message[index])) return id;
  throw wrong("request", "another suite", "X25519, HKDF-SHA256, AES-128-GCM");
}

/** Decrypt. Rejects with E_MESSAGE, whatever is wrong. */
export async function openRequest({ pair }: MessageKey, message: Uint8Array): Promise<OpenedRequest> {
  const header = encodeHeader(messageKeyId(message));
  const encapsulated = message.slice(HEADER_SIZE, HEADER_SIZE + KEY_SIZE);
  const fail = () => wrong("request", "another key's, or other bytes", "what its sender encrypted");
  const ctx = await refuse(suite.SetupRecipient(pair, encapsulated, { info: infoOf(header) }), fail);
  const plaintext = await refuse(ctx.Open(message.subarray(HEADER_SIZE + KEY_SIZE)), fail);
  const secret = await ctx.Export(RESPONSE_CONTEXT, SECRET_SIZE);
  return { plaintext, encapsulated, seal: (response) => sealResponse(secret, encapsulated, response) };
}

/** RFC 9458 §4.3, §4.4. */
const REQUEST_CONTEXT = new TextEncoder().encode("message/bhttp request");
const RESPONSE_CONTEXT = new TextEncoder().encode("message/bhttp response");

function infoOf(header: Uint8Array): Uint8Array {
  return concat([REQUEST_CONTEXT, Uint8Array.of(0), header]);
}

function encodeHeader(id: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE);
  const view = viewOf(bytes);
  view.setUint8(HEADER.id, id);
  view.setUint16(HEADER.kem, KEM_X25519);
  view.setUint16(HEADER.kdf, HKDF_SHA256);
  view.setUint16(HEADER.aead, AES_128_GCM);
  return bytes;
}

async function sealResponse(secret: Uint8Array, encapsulated: Uint8Array, plaintext: Uint8Array) {
  const responseNonce = globalThis.crypto.getRandomValues(new Uint8Array(SECRET_SIZE));
  const { key, nonce } = await responseKeys(secret, encapsulated, responseNonce);
  return concat([responseNonce, await aead.Seal(key, nonce, new Uint8Array(0), plaintext)]);
}

async function openResponse(secret: Uint8Array, encapsulated: Uint8Array, response: Uint8Array) {
  const fail = () => wrong("response", "another key's, or other bytes", "what the enclave encrypted");
  if (response.length < SECRET_SIZE) throw fail();
  const { key, nonce } = await responseKeys(secret, encapsulated, response.subarray(0, SECRET_SIZE));
  return refuse(aead.Open(key, nonce, new Uint8Array(0), response.subarray(SECRET_SIZE)), fail);
}

async function responseKeys(secret: Uint8Array, encapsulated: Uint8Array, responseNonce: Uint8Array) {
  const prk = await kdf.Extract(concat([encapsulated, responseNonce]), secret);
  const label = (text: string) => new TextEncoder().encode(text);
  const [key, nonce] = await Promise.all([
    kdf.Expand(prk, label("key"), AEAD_KEY_SIZE),
    kdf.Expand(prk, label("nonce"), AEAD_NONCE_SIZE),
  ]);
  return { key, nonce };
}

/** The library's errors tell apart what must look the same. */
async function refuse<T>(work: Promise<T>, error: () => CloisterError): Promise<T> {
  try {
    return await work;
  } catch {
    throw error();
  }
}

function wrong(where: string, got: string, expected: string): CloisterError {
  return mismatch("E_MESSAGE", `encrypted ${where}`, got, expected);
}
