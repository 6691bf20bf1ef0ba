/**
 * The chain of certificates of an attestation document, from the root down. Source: aws-nitro-enclaves-nsm-api
 * `docs/attestation_process.md` §3.2.3, RFC 5280 §6.1. Stricter than either: P-384 with SHA-384 throughout, every
 * certificate of version 3, key usage everywhere. There are no revocation lists to ask without a network.
 */
import { type Certificate, decodeCertificate } from "./certificate.ts";
import { decodeEcdsaSignature, verifyEcdsa } from "./ecdsa.ts";
import {
  BASIC_CONSTRAINTS,
  decodeBasicConstraints,
  decodeKeyUsage,
  type Extension,
  KEY_USAGE,
  KeyUsage,
} from "./extension.ts";
import { CloisterError, mismatch, quote } from "./failure.ts";
import { toHex } from "./struct.ts";

/** An instant at which all certificates must be valid, Unix milliseconds, with what clocks may differ by. */
export interface Instant {
  readonly name: string;
  readonly earliest: number;
  readonly latest: number;
}

/** SubjectPublicKeyInfo of a P-384 key up to its point, uncompressed: RFC 5480 §2. */
const P384_SPKI = "3076301006072a8648ce3d020106052b8104002203620004";
const P384_SPKI_SIZE = 120;

/** Root first, the document's own certificate last. Throws E_ATTESTATION_CHAIN. */
export function decodeChain(certificates: readonly Uint8Array[]): Certificate[] {
  return certificates.map((der, index) => {
    const where = placeOf(index, certificates.length);
    return inCertificate(where, () => {
      const certificate = decodeCertificate(der);
      checkShape(certificate, where);
      return certificate;
    });
  });
}

/** All but the signatures: who may issue what, names, validity. Throws E_ATTESTATION_CHAIN. */
export function checkChain(chain: readonly Certificate[], instants: readonly Instant[]): void {
  for (const [index, certificate] of chain.entries()) {
    const where = placeOf(index, chain.length);
    // The leaf is no authority, hence none of those that may follow.
    const following = chain.length - 2 - index;
    inCertificate(where, () => {
      if (following < 0) checkLeaf(certificate, where);
      else checkAuthority(certificate, following, where);
    });
    checkValidity(certificate, instants, where);
    const issuer = chain[index - 1];
    if (issuer !== undefined && toHex(issuer.subjectDer) !== toHex(certificate.issuerDer)) {
      throw wrong(`${where}: issuer`, nameOf(certificate.issuer), nameOf(issuer.subject));
    }
  }
}

/**
 * For each certificate below the root whether the one above it signed it. All are checked at once: WebCrypto has threads
 * where there are any.
 */
export async function verifyLinks(chain: readonly Certificate[]): Promise<boolean[]> {
  return Promise.all(
    chain.slice(1).map((certificate, index) => {
      const issuer = chain[index] as Certificate;
      return verifyEcdsa(
        issuer.publicKey,
        decodeEcdsaSignature(certificate.signature, "P-384"),
        certificate.tbs,
      );
    }),
  );
}

/** Throws E_ATTESTATION_CHAIN for the first certificate that its issuer did not sign. */
export function checkLinks(chain: readonly Certificate[], links: readonly boolean[]): void {
  const broken = links.indexOf(false) + 1;
  if (broken === 0) return;
  const issuer = nameOf((chain[broken - 1] as Certificate).subject);
  throw wrong(`${placeOf(broken, chain.length)}: signature`, "another key's", `one by ${issuer}`);
}

/** The subject's common name, or all of the name. */
export function nameOf(attributes: Certificate["subject"]): string {
  const common = attributes.find(({ name }) => name === "commonName");
  return quote(common?.value ?? attributes.map(({ name, value }) => `${name}=${value}`).join(", "));
}

function placeOf(index: number, length: number): string {
  return index === length - 1 ? "certificate" : `cabundle[${index}]`;
}

function checkShape(certificate: Certificate, where: string): void {
  if (certificate.version !== 3) throw wrong(`${where}: version`, `${certificate.version}`, "3");
  if (certificate.signatureAlgorithm !== "ecdsa-with-SHA384") {
    throw wrong(`${where}: signature algorithm`, certificate.signatureAlgorithm, "ecdsa-with-SHA384");
  }
  const { spki, curve } = certificate.publicKey;
  if (spki.length !== P384_SPKI_SIZE || !toHex(spki).startsWith(P384_SPKI)) {
    throw wrong(`${where}: public key`, curve ?? "another kind", "P-384, uncompressed");
  }
  decodeEcdsaSignature(certificate.signature, "P-384");
  const known = [BASIC_CONSTRAINTS, KEY_USAGE];
  const strange = certificate.extensions.find(({ oid, critical }) => critical && !known.includes(oid));
  if (strange !== undefined) throw wrong(where, `the critical extension ${strange.oid}`, known.join(" and "));
}

function checkAuthority(certificate: Certificate, following: number, where: string): void {
  const { ca, pathLength } = decodeBasicConstraints(extension(certificate, BASIC_CONSTRAINTS, where).value);
  if (!ca) throw wrong(`${where}: basicConstraints`, "no certificate authority", "one");
  if (pathLength !== undefined && following > pathLength) {
    throw wrong(`${where}: basicConstraints`, `path length ${pathLength}`, `at least ${following}`);
  }
  const usage = decodeKeyUsage(extension(certificate, KEY_USAGE, where).value);
  if (!usage.has(KeyUsage.KeyCertSign)) throw wrong(`${where}: keyUsage`, "no keyCertSign", "keyCertSign");
}

function checkLeaf(certificate: Certificate, where: string): void {
  const { ca } = decodeBasicConstraints(extension(certificate, BASIC_CONSTRAINTS, where).value);
  if (ca) throw wrong(`${where}: basicConstraints`, "a certificate authority", "none");
  const usage = decodeKeyUsage(extension(certificate, KEY_USAGE, where).value);
  if (usage.has(KeyUsage.KeyCertSign)) throw wrong(`${where}: keyUsage`, "keyCertSign", "none");
  if (!usage.has(KeyUsage.DigitalSignature)) {
    throw wrong(`${where}: keyUsage`, "no digitalSignature", "digitalSignature");
  }
}

function extension(certificate: Certificate, oid: string, where: string): Extension {
  const found = certificate.extensions.find((candidate) => candidate.oid === oid);
  if (found !== undefined) return found;
  throw wrong(where, "nothing", oid === KEY_USAGE ? "keyUsage" : "basicConstraints");
}

/** RFC 5280 §4.1.2.5: both ends are valid. */
function checkValidity(
  { notBefore, notAfter }: Certificate,
  instants: readonly Instant[],
  where: string,
): void {
  for (const { name, earliest, latest } of instants) {
    // notAfter names a second, all of which is valid.
    if (latest >= notBefore && earliest < notAfter + 1000) continue;
    const expected = `${iso(notBefore)} to ${iso(notAfter)}`;
    throw wrong(`${where}: validity at ${name}`, iso(latest < notBefore ? latest : earliest), expected);
  }
}

/** To seconds, or milliseconds where there are any. Numbers that are no date are shown as they are. */
export function iso(time: number): string {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? `${time} ms` : date.toISOString().replace(".000Z", "Z");
}

function inCertificate<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!(cause instanceof CloisterError) || cause.code === "E_ATTESTATION_CHAIN") throw cause;
    const { got = "something else", expected = "a certificate" } = cause;
    const options = { cause, got, expected };
    throw new CloisterError("E_ATTESTATION_CHAIN", `${where}: ${cause.message}`, options);
  }
}

function wrong(where: string, got: string, expected: string): CloisterError {
  return mismatch("E_ATTESTATION_CHAIN", where, got, expected);
}
