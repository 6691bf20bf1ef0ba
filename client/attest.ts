/** Attest an enclave over HTTP: what runs there, and which keys are its own. */
import { type Binding, decodeBinding, hashKey } from "../format/binding.ts";
import { mismatch } from "../format/failure.ts";
import { decodeKeyConfig } from "../format/ohttp.ts";
import type { Accepted } from "../format/options.ts";
import { toHex } from "../format/struct.ts";
import { type Step, type Verified, verifyAttestation } from "../format/verify.ts";
import { type EndpointOptions, fetchAttestation } from "./endpoint.ts";

/** 256 random bits: no document was made for them before. */
const NONCE_SIZE = 32;

export type AttestOptions = Accepted & {
  /** SHA-256 of the root certificates to trust, instead of AWS's; see `fingerprint` of `cloister/verify`. */
  readonly roots?: readonly string[];
  /** How old a document may be when it comes, and how far ahead its clock, milliseconds: as for `verifyAttestation`. */
  readonly maxAge?: number;
  readonly clockSkew?: number;
};

export interface Attested extends Verified {
  readonly binding: Binding;
  /** The key configuration to encrypt requests to; null: the enclave takes none. */
  readonly messageConfig: Uint8Array | null;
}

/**
 * Ask with a fresh nonce, verify, read the binding. Rejects with E_ATTESTATION_FETCH, an AttestationError, or
 * E_ATTESTATION_BINDING where the document is good but not of cloister's endpoint.
 */
export async function attestEndpoint(
  base: URL,
  options: AttestOptions,
  endpoint: EndpointOptions,
): Promise<Attested> {
  const nonce = globalThis.crypto.getRandomValues(new Uint8Array(NONCE_SIZE));
  const { roots, maxAge, clockSkew } = options;
  const accepted: Accepted = options.pcrs === undefined ? { policy: options.policy } : { pcrs: options.pcrs };
  const bytes = await fetchAttestation(base, nonce, endpoint);
  const { document, steps } = await verifyAttestation(bytes, {
    ...{ ...accepted, nonce },
    ...(roots === undefined ? {} : { roots }),
    ...(maxAge === undefined ? {} : { maxAge }),
    ...(clockSkew === undefined ? {} : { clockSkew }),
  });
  const binding = decodeBinding(document.userData);
  const messageConfig = await boundConfig(binding, document.publicKey);
  return { document, steps, binding, messageConfig };
}

/** The document's public key, if the binding has its hash: other public keys of the app are not meant for this. */
async function boundConfig(
  { messageKey }: Binding,
  publicKey: Uint8Array | null,
): Promise<Uint8Array | null> {
  if (messageKey === null) return null;
  const got = publicKey === null ? "none" : toHex(await hashKey(publicKey));
  const expected = toHex(messageKey);
  if (publicKey === null || got !== expected) {
    throw mismatch("E_ATTESTATION_BINDING", "public key: SHA-256", got, expected);
  }
  decodeKeyConfig(publicKey);
  return publicKey;
}

/** The steps with `name`, which the verifier left out, passed by whoever compared it. */
export function withStep(steps: readonly Step[], name: Step["name"], checked: string, got: string): Step[] {
  return steps.map((step) => (step.name === name ? { name, status: "passed", checked, got } : step));
}
