/**
 * The EIF's signature section. Source: image-format `src/defs/mod.rs`, PcrSignature and PcrInfo, `src/utils/eif_signer.rs`.
 * All byte strings but COSE's own are arrays of integers there, one for each byte: serde's reading of Vec<u8>.
 */
import { type CborValue, decodeCbor, encodeCbor } from "./cbor.ts";
import { type Certificate, decodeCertificate, decodePem } from "./certificate.ts";
import { type CoseSign1, decodeCoseSign1, verifyCoseSign1 } from "./cose.ts";
import { CloisterError, mismatch } from "./errors.ts";

/** image-format `src/defs/mod.rs`, SIGNATURE_MAX_SIZE: bytes of the section's data. */
export const SIGNATURE_SECTION_MAX = 32_768;

export interface SignatureSection {
  /** The PEM file, verbatim. */
  readonly signingCertificate: Uint8Array;
  /** A COSE_Sign1 over the register and its value. */
  readonly signature: Uint8Array;
}

export interface EifSignature {
  readonly certificate: Certificate;
  readonly message: CoseSign1;
}

export function encodeSignatureSection(section: SignatureSection): Uint8Array {
  const fields = new Map([
    ["signing_certificate", [...section.signingCertificate]],
    ["signature", [...section.signature]],
  ]);
  return encodeCbor([fields]);
}

/** Only the first of the signatures counts for any known reader. Throws E_EIF_SIGNATURE. */
export function decodeSignatureSection(data: Uint8Array): SignatureSection {
  if (data.length > SIGNATURE_SECTION_MAX) {
    const expected = `at most ${SIGNATURE_SECTION_MAX}`;
    throw mismatch("E_EIF_SIGNATURE", "signature section", `${data.length} bytes`, expected);
  }
  const item = inSection(() => decodeCbor(data));
  const first = Array.isArray(item) ? (item[0] as CborValue | undefined) : undefined;
  if (!(first instanceof Map)) {
    throw mismatch("E_EIF_SIGNATURE", "signature section", "something else", "an array of maps");
  }
  return {
    signingCertificate: decodeByteArray(first.get("signing_certificate"), "signing_certificate"),
    signature: decodeByteArray(first.get("signature"), "signature"),
  };
}

function decodeByteArray(value: CborValue | undefined, name: string): Uint8Array {
  const isBytes =
    Array.isArray(value) && value.every((item) => typeof item === "number" && item >= 0 && item <= 255);
  if (isBytes) return Uint8Array.from(value as number[]);
  throw mismatch("E_EIF_SIGNATURE", `signature section: ${name}`, "something else", "an array of bytes");
}

/** The payload that is signed. `value` is the register's, 48 bytes. */
export function encodePcrInfo(index: number, value: Uint8Array): Uint8Array {
  const fields = new Map<string, CborValue>([
    ["register_index", index],
    ["register_value", [...value]],
  ]);
  return encodeCbor(fields);
}

/** Certificate and message of a signature section; nothing is verified. Throws E_EIF_SIGNATURE. */
export function decodeSignature(data: Uint8Array): EifSignature {
  const section = decodeSignatureSection(data);
  return inSection(() => ({
    certificate: decodeCertificate(decodePem(section.signingCertificate)),
    message: decodeCoseSign1(section.signature),
  }));
}

/** Whether the certificate's key signed exactly this PCR0, 48 bytes. The certificate itself is taken as it is. */
export async function verifySignature(signature: EifSignature, pcr0: Uint8Array): Promise<boolean> {
  const expected = encodePcrInfo(0, pcr0);
  const { payload } = signature.message;
  if (payload.length !== expected.length || payload.some((byte, i) => byte !== expected[i])) return false;
  return verifyCoseSign1(signature.message, signature.certificate.publicKey);
}

function inSection<T>(decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    if (!(cause instanceof CloisterError)) throw cause;
    throw new CloisterError("E_EIF_SIGNATURE", `signature section: ${cause.message}`, { cause });
  }
}
