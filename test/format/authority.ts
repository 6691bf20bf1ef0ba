/** A chain of Nitro's shape under a root of our own, any part of which a test may spoil. */
import { type AttestationDocument, signAttestation } from "../../format/attestation.ts";
import {
  type CertificateRequest,
  createKeyPair,
  exportSpki,
  issueCertificate,
} from "../../format/authority.ts";
import { encodeBasicConstraints, encodeKeyUsage, KeyUsage } from "../../format/extension.ts";
import { toHex } from "../../format/struct.ts";
import { fingerprint, type PcrSet, type VerifyOptions } from "../../format/verify.ts";

/** 2026-03-04T05:06:07Z. */
export const NOW = Date.UTC(2026, 2, 4, 5, 6, 7);
const DAY = 86_400_000;
/** The names of Nitro's chain, root first. */
const NAMES = ["root", "region", "zone", "instance", "enclave"];
export const LEAF = NAMES.length - 1;

export interface Spoiled extends Partial<CertificateRequest> {
  /** The subject's keys; a fresh P-384 pair if left out. */
  readonly keys?: CryptoKeyPair;
  /** Who signs; the one above if left out. */
  readonly signer?: CryptoKey;
}

export interface Chain {
  /** DER, root first, the enclave's own last. */
  readonly certificates: readonly Uint8Array[];
  readonly keys: readonly CryptoKeyPair[];
  /** Of the root. */
  readonly fingerprint: string;
}

/** `spoil` by index, 0 is the root and LEAF the enclave's certificate. */
export async function createChain(spoil: Readonly<Record<number, Spoiled>> = {}): Promise<Chain> {
  const certificates: Uint8Array[] = [];
  const keys: CryptoKeyPair[] = [];
  for (const [index, name] of NAMES.entries()) {
    const { keys: own = await createKeyPair(true), signer, ...request } = spoil[index] ?? {};
    keys.push(own);
    const issuer = spoil[index - 1]?.subject ?? nameOf(NAMES[index - 1] ?? name);
    const usual = { issuer, subject: nameOf(name), spki: await exportSpki(own.publicKey), ...usualOf(index) };
    const signing = signer ?? keys[Math.max(0, index - 1)]?.privateKey ?? own.privateKey;
    certificates.push(await issueCertificate({ ...usual, ...request }, signing));
  }
  return { certificates, keys, fingerprint: await fingerprint(certificates[0] ?? new Uint8Array(0)) };
}

export function nameOf(commonName: string): CertificateRequest["subject"] {
  return [
    { name: "countryName", value: "US" },
    { name: "commonName", value: commonName },
  ];
}

/** Path lengths and lifetimes as in the documents that hardware made. */
function usualOf(
  index: number,
): Pick<CertificateRequest, "serial" | "notBefore" | "notAfter" | "extensions"> {
  const authority = [KeyUsage.DigitalSignature, KeyUsage.KeyCertSign, KeyUsage.CrlSign];
  return {
    serial: Uint8Array.of(0x90 + index, 1),
    notBefore: NOW - (LEAF - index) * DAY - 600_000,
    notAfter: NOW + (LEAF - index) * DAY + 3 * 3_600_000,
    extensions:
      index === LEAF
        ? [encodeBasicConstraints({ ca: false, pathLength: undefined }), encodeKeyUsage([0, 1])]
        : [
            encodeBasicConstraints({ ca: true, pathLength: index === 0 ? undefined : LEAF - 1 - index }),
            encodeKeyUsage(authority),
          ],
  };
}

export const NONCE = Uint8Array.from({ length: 32 }, (_, i) => i + 1);
export const PUBLIC_KEY = Uint8Array.from({ length: 91 }, (_, i) => 255 - i);
export const USER_DATA = Uint8Array.from({ length: 64 }, (_, i) => 3 * i);

export function register(fill: number): Uint8Array {
  return new Uint8Array(48).fill(fill);
}

/** PCR0 to 4 and 8 filled with 0x10 + index, the others zero, up to 15. */
const PCRS = new Map(
  Array.from({ length: 16 }, (_, i) => [i, register([0, 1, 2, 3, 4, 8].includes(i) ? 0x10 + i : 0)]),
);
export const POLICY: PcrSet = Object.fromEntries(
  [0, 1, 2].map((index) => [`PCR${index}`, toHex(register(0x10 + index))]),
);

export function documentOf(chain: Chain): AttestationDocument {
  return {
    moduleId: "i-0123456789abcdef0-enc0123456789abcdef",
    digest: "SHA384",
    timestamp: NOW,
    pcrs: PCRS,
    certificate: chain.certificates[LEAF] ?? new Uint8Array(0),
    caBundle: chain.certificates.slice(0, LEAF),
    publicKey: PUBLIC_KEY,
    userData: USER_DATA,
    nonce: NONCE,
  };
}

export async function signed(
  chain: Chain,
  changes: Partial<Record<keyof AttestationDocument, unknown>> = {},
): Promise<Uint8Array> {
  const document = { ...documentOf(chain), ...changes } as AttestationDocument;
  return signAttestation(document, chain.keys[LEAF]?.privateKey as CryptoKey);
}

/** What accepts `signed(chain)`. */
export function optionsFor(
  chain: Chain,
): VerifyOptions & { readonly nonce: Uint8Array; readonly pcrs: PcrSet } {
  return { pcrs: POLICY, nonce: NONCE, roots: [chain.fingerprint], now: NOW + 1000 };
}
