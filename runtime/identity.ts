/** The enclave's TLS key, made at start and never outside its memory, and the certificate that TLS wants around it. */
import { createKeyPair, exportSpki, issueCertificate } from "../format/authority.ts";
import { hashKey } from "../format/binding.ts";
import { encodeBasicConstraints, encodeKeyUsage, KeyUsage } from "../format/extension.ts";

export interface TlsIdentity {
  /** PEM, PKCS #8 and X.509. */
  readonly key: string;
  readonly cert: string;
  /** SHA-256 of the key's SubjectPublicKeyInfo: what the binding has. */
  readonly spkiHash: Uint8Array;
}

const DAY_MS = 86_400_000;

/** A fresh P-384 key with a self-signed certificate. Nobody judges it: what counts is the hash of its key. */
export async function createTlsIdentity(name: string, now = Date.now()): Promise<TlsIdentity> {
  const { privateKey, publicKey } = await createKeyPair(true);
  const spki = await exportSpki(publicKey);
  const subject = [{ name: "commonName", value: name }];
  const serial = globalThis.crypto.getRandomValues(new Uint8Array(16));
  // RFC 5280 §4.1.2.2: not zero.
  serial[0] = 1;
  const certificate = await issueCertificate(
    {
      ...{ serial, issuer: subject, subject, spki },
      // The clock is the parent's: generous, since nothing is known by it.
      notBefore: now - DAY_MS,
      notAfter: now + 3650 * DAY_MS,
      extensions: [
        encodeBasicConstraints({ ca: false, pathLength: undefined }),
        encodeKeyUsage([KeyUsage.DigitalSignature]),
      ],
    },
    privateKey,
  );
  const pkcs8 = new Uint8Array(await globalThis.crypto.subtle.exportKey("pkcs8", privateKey));
  return {
    key: pem("PRIVATE KEY", pkcs8),
    cert: pem("CERTIFICATE", certificate),
    spkiHash: await hashKey(spki),
  };
}

/** RFC 7468 §2. */
function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}
