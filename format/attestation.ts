/**
 * Attestation documents: a COSE_Sign1 that holds a CBOR map. Source: aws-nitro-enclaves-nsm-api
 * `docs/attestation_process.md` §3.1, §3.2.2, and documents made by hardware.
 */
import { type CborKey, type CborValue, decodeCbor, encodeCbor } from "./cbor.ts";
import {
  type CoseSign1,
  decodeCoseSign1,
  ES384,
  encodeCoseSign1,
  encodeProtectedHeader,
  signCoseSign1,
} from "./cose.ts";
import { type CloisterError, mismatch, quote } from "./failure.ts";
import { toHex } from "./struct.ts";

/** Bytes. nsm-api `docs/attestation_process.md` §3.2.2. */
export const PAYLOAD_MAX = 16_384;
export const CERTIFICATE_MAX = 1024;
export const PUBLIC_KEY_MAX = 1024;
/** Bytes. §3.2.2.2 says 512 for both, the grammar of §3.1 and nsm-check 1024; read the larger, send the smaller. */
export const USER_DATA_MAX = 1024;
export const NONCE_MAX = 1024;
export const PORTABLE_MAX = 512;
/** Registers are 0 to 31, of 48 bytes under SHA-384. */
export const PCR_COUNT = 32;
export const PCR_SIZE = 48;
/** Ours, so that a document cannot ask for work without end: hardware sends 4. */
export const CA_BUNDLE_MAX = 8;
/** Of a whole document, bytes: array, protected header, empty map, heads of payload and signature, and these. */
export const DOCUMENT_MAX = 1 + 5 + 1 + 3 + PAYLOAD_MAX + 2 + 96;

/**
 * Where an enclave serves documents over HTTP: GET, with the nonce in the query as hexadecimal. The answer's body is the
 * document as the NSM made it; its type is RFC 9052 §11.3.1's.
 */
export const ATTESTATION_PATH = "/.well-known/attestation";
export const ATTESTATION_TYPE = "application/cose";
export const ATTESTATION_CONTENT_TYPE = `${ATTESTATION_TYPE}; cose-type="cose-sign1"`;

export interface AttestationDocument {
  /** Instance and enclave: `i-07e25f3bada361dec-enc0181d3dff86da785`. */
  readonly moduleId: string;
  readonly digest: "SHA384";
  /** When the hypervisor made it, Unix milliseconds. */
  readonly timestamp: number;
  /** Registers that are locked, 48 bytes each, by index. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  /** X.509, DER: its key signed the document. */
  readonly certificate: Uint8Array;
  /** X.509, DER: the root first, then down to the certificate's issuer. */
  readonly caBundle: readonly Uint8Array[];
  /** What the enclave put in; null: nothing, which is not the same as zero bytes. */
  readonly publicKey: Uint8Array | null;
  readonly userData: Uint8Array | null;
  readonly nonce: Uint8Array | null;
}

/** The payload, its fields in the order that hardware has them. */
export function encodeAttestation(document: AttestationDocument): Uint8Array {
  return encodeCbor(
    new Map<string, CborValue>([
      ["module_id", document.moduleId],
      ["digest", document.digest],
      ["timestamp", document.timestamp],
      ["pcrs", document.pcrs],
      ["certificate", document.certificate],
      ["cabundle", document.caBundle],
      ["public_key", document.publicKey],
      ["user_data", document.userData],
      ["nonce", document.nonce],
    ]),
  );
}

/** A whole document, as the NSM returns it. `key`: the private P-384 key of `document.certificate`. */
export async function signAttestation(document: AttestationDocument, key: CryptoKey): Promise<Uint8Array> {
  return encodeCoseSign1(await signCoseSign1(encodeAttestation(document), key));
}

/**
 * The envelope: exactly hardware's encoding of it, ES384 and nothing else in the protected header, nothing in the
 * unprotected one, no tag. Nothing is verified. Throws E_ATTESTATION_FORMAT, E_CBOR or E_COSE.
 */
export function decodeEnvelope(bytes: Uint8Array): CoseSign1 {
  if (bytes.length > DOCUMENT_MAX)
    throw wrong("document", `${bytes.length} bytes`, `at most ${DOCUMENT_MAX}`);
  const message = decodeCoseSign1(bytes);
  const header = toHex(message.protectedHeader);
  const expected = toHex(encodeProtectedHeader(ES384));
  if (header !== expected) throw wrong("protected header", header, `${expected}: ES384`);
  if (message.signature.length !== 96) throw wrong("signature", `${message.signature.length} bytes`, "96");
  // Strict CBOR leaves only a tag and the unprotected header free, and neither is signed.
  if (encodeCoseSign1(message).length !== bytes.length) {
    throw wrong("COSE_Sign1", "a tag or an unprotected header", "neither");
  }
  return message;
}

const FIELDS: readonly CborKey[] = [
  ...[
    "module_id",
    "digest",
    "timestamp",
    "pcrs",
    "certificate",
    "cabundle",
    "public_key",
    "user_data",
    "nonce",
  ],
];

/**
 * The fields of a payload, in any order. Nothing is verified; byte strings are views of the input. Throws E_CBOR, or
 * E_ATTESTATION_FORMAT for a field that is absent, unknown, of another type, or beyond its limits.
 */
export function decodeAttestation(payload: Uint8Array): AttestationDocument {
  if (payload.length < 1 || payload.length > PAYLOAD_MAX) {
    throw wrong("payload", `${payload.length} bytes`, `1 to ${PAYLOAD_MAX}`);
  }
  const item = decodeCbor(payload);
  if (!(item instanceof Map)) throw wrong("payload", kind(item), "a map");
  const fields = item as ReadonlyMap<CborKey, CborValue>;
  const unknown = [...fields.keys()].find((key) => !FIELDS.includes(key));
  if (unknown !== undefined) throw wrong("payload", `the field ${show(unknown)}`, "only known ones");
  return {
    moduleId: decodeModuleId(fields.get("module_id")),
    digest: decodeDigest(fields.get("digest")),
    timestamp: decodeTimestamp(fields.get("timestamp")),
    pcrs: decodePcrs(fields.get("pcrs")),
    certificate: bytesOf(fields, "certificate", 1, CERTIFICATE_MAX),
    caBundle: decodeCaBundle(fields.get("cabundle")),
    publicKey: optionalBytes(fields, "public_key", 1, PUBLIC_KEY_MAX),
    userData: optionalBytes(fields, "user_data", 0, USER_DATA_MAX),
    nonce: optionalBytes(fields, "nonce", 0, NONCE_MAX),
  };
}

function decodeModuleId(value: CborValue | undefined): string {
  if (typeof value === "string" && value.length > 0) return value;
  throw wrong("module_id", kind(value), "text");
}

function decodeDigest(value: CborValue | undefined): "SHA384" {
  if (value === "SHA384") return value;
  throw wrong("digest", typeof value === "string" ? show(value) : kind(value), '"SHA384"');
}

function decodeTimestamp(value: CborValue | undefined): number {
  if (typeof value === "number" && value > 0) return value;
  throw wrong("timestamp", kind(value), "milliseconds since 1970");
}

function decodePcrs(value: CborValue | undefined): ReadonlyMap<number, Uint8Array> {
  if (!(value instanceof Map)) throw wrong("pcrs", kind(value), "a map");
  if (value.size < 1 || value.size > PCR_COUNT)
    throw wrong("pcrs", `${value.size} of them`, `1 to ${PCR_COUNT}`);
  const pcrs = new Map<number, Uint8Array>();
  for (const [index, register] of value as ReadonlyMap<CborKey, CborValue>) {
    if (typeof index !== "number" || index < 0 || index >= PCR_COUNT) {
      throw wrong("pcrs", `index ${show(index)}`, `0 to ${PCR_COUNT - 1}`);
    }
    pcrs.set(index, sized(`pcrs: PCR${index}`, register, PCR_SIZE, PCR_SIZE));
  }
  return pcrs;
}

function decodeCaBundle(value: CborValue | undefined): Uint8Array[] {
  if (!Array.isArray(value)) throw wrong("cabundle", kind(value), "an array");
  if (value.length < 1 || value.length > CA_BUNDLE_MAX) {
    throw wrong("cabundle", `${value.length} certificates`, `1 to ${CA_BUNDLE_MAX}`);
  }
  return (value as CborValue[]).map((entry, index) => sized(`cabundle[${index}]`, entry, 1, CERTIFICATE_MAX));
}

type Fields = ReadonlyMap<CborKey, CborValue>;

function bytesOf(fields: Fields, name: string, least: number, most: number): Uint8Array {
  return sized(name, fields.get(name), least, most);
}

/** The grammar of §3.1 lets these be null or absent. */
function optionalBytes(fields: Fields, name: string, least: number, most: number): Uint8Array | null {
  const value = fields.get(name) ?? null;
  return value === null ? null : sized(name, value, least, most);
}

function sized(where: string, value: CborValue | undefined, least: number, most: number): Uint8Array {
  const size = least === most ? `${least}` : `${least} to ${most}`;
  if (!(value instanceof Uint8Array)) throw wrong(where, kind(value), `${size} bytes`);
  if (value.length >= least && value.length <= most) return value;
  throw wrong(where, `${value.length} bytes`, `${size}`);
}

function kind(value: CborValue | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (value instanceof Map) return "a map";
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "string") return "text";
  return typeof value === "object" ? "a tagged item" : `${value}`;
}

function show(value: CborKey): string {
  return typeof value === "string" ? quote(value) : `${value}`;
}

function wrong(where: string, got: string, expected: string): CloisterError {
  return mismatch("E_ATTESTATION_FORMAT", where, got, expected);
}
