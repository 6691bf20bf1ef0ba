/** A certificate authority of one test: its enclave trusts it by the configuration's `ca`, and nobody else does. */
import { isIP } from "node:net";
import { encodePem } from "../../emulator/nsm/root.ts";
import { createKeyPair, exportSpki, issueCertificate } from "../../format/authority.ts";
import { encodeElement, Tag } from "../../format/der.ts";
import { type Extension, encodeBasicConstraints, encodeKeyUsage, KeyUsage } from "../../format/extension.ts";

const DAY_MS = 86_400_000;
const SUBJECT_ALT_NAME = "2.5.29.17";
/** GeneralName, RFC 5280 §4.2.1.6: dNSName is [2], iPAddress [7]. */
const NAME_TAGS = { dns: 0x82, ip: 0x87 } as const;
const ISSUER = [{ name: "commonName", value: "cloister test authority" }];

/** PEM. */
export interface Identity {
  readonly key: string;
  readonly cert: string;
}

export interface Authority {
  /** PEM. */
  readonly certificate: string;
  /** A server's key and certificate. `host`: a canonical name or IPv4 address. */
  issue(host: string): Promise<Identity>;
}

/** `now`: Unix milliseconds by the clock of the enclave that is to trust it. */
export async function createAuthority(now: number): Promise<Authority> {
  const root = await createKeyPair(true);
  const validity = { notBefore: now - DAY_MS, notAfter: now + 30 * DAY_MS };
  let serial = 1;
  const certify = async (keys: CryptoKeyPair, name: string, extensions: readonly Extension[]) => {
    const spki = await exportSpki(keys.publicKey);
    const names = { issuer: ISSUER, subject: [{ name: "commonName", value: name }] };
    const request = { serial: Uint8Array.of(serial++), ...names, ...validity, spki, extensions };
    return encodePem("CERTIFICATE", await issueCertificate(request, root.privateKey));
  };
  const usage = encodeKeyUsage([KeyUsage.KeyCertSign]);
  const rights = [encodeBasicConstraints({ ca: true, pathLength: 0 }), usage];
  const certificate = await certify(root, ISSUER[0]?.value ?? "", rights);
  return {
    certificate,
    async issue(host) {
      const keys = await createKeyPair(true);
      const pkcs8 = await globalThis.crypto.subtle.exportKey("pkcs8", keys.privateKey);
      const extensions = [
        encodeBasicConstraints({ ca: false, pathLength: undefined }),
        encodeKeyUsage([KeyUsage.DigitalSignature]),
        alternativeName(host),
      ];
      // A name may be longer than the 64 characters of a commonName; what counts is the alternative one.
      const cert = await certify(keys, host.slice(0, 64), extensions);
      return { key: encodePem("PRIVATE KEY", new Uint8Array(pkcs8)), cert };
    },
  };
}

function alternativeName(host: string): Extension {
  const name =
    isIP(host) === 4
      ? encodeElement(NAME_TAGS.ip, Uint8Array.from(host.split("."), Number))
      : encodeElement(NAME_TAGS.dns, new TextEncoder().encode(host));
  return { oid: SUBJECT_ALT_NAME, critical: false, value: encodeElement(Tag.Sequence, name) };
}
