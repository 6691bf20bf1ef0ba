import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { createKeyPair, exportSpki, issueCertificate } from "../../format/authority.ts";
import { decodeCertificate } from "../../format/certificate.ts";
import { checkChain, decodeChain } from "../../format/chain.ts";
import { encodeElement, encodeInteger, Tag } from "../../format/der.ts";
import {
  BASIC_CONSTRAINTS,
  encodeBasicConstraints,
  encodeKeyUsage,
  KEY_USAGE,
} from "../../format/extension.ts";
import { concat } from "../../format/struct.ts";
import { AttestationError, verifyAttestation } from "../../format/verify.ts";
import {
  type Chain,
  createChain,
  documentOf,
  LEAF,
  NOW,
  nameOf,
  optionsFor,
  type Spoiled,
  signed,
} from "./authority.ts";
import { patched, refusal } from "./vectors.ts";

const DAY = 86_400_000;
const authority = (pathLength?: number) => encodeBasicConstraints({ ca: true, pathLength });
const leaf = encodeBasicConstraints({ ca: false, pathLength: undefined });
const signs = encodeKeyUsage([0, 1]);
const certifies = encodeKeyUsage([5, 6]);
const critical = { oid: "2.5.29.30", critical: true, value: Uint8Array.of(0x30, 0) };

/** What verification says of a chain with these parts spoiled, its own root trusted. */
async function verdict(chain: Chain): Promise<string> {
  try {
    await verifyAttestation(await signed(chain), optionsFor(chain));
    return "verified";
  } catch (error) {
    if (error instanceof AttestationError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

const CHAIN = "E_ATTESTATION_CHAIN: chain: ";

test("a chain of Nitro's shape verifies", async () => {
  expect(await verdict(await createChain())).toBe("verified");
});

test.each<[string, Record<number, Spoiled>]>([
  [
    "longer path lengths",
    { 1: { extensions: [authority(9), certifies] }, 2: { extensions: [authority(), certifies] } },
  ],
  [
    "an unknown extension that is not critical",
    { 3: { extensions: [authority(0), certifies, { ...critical, critical: false }] } },
  ],
  [
    "a leaf whose key usage is not critical",
    { [LEAF]: { extensions: [leaf, { ...signs, critical: false }] } },
  ],
  ["a root valid from 1970 to 2060", { 0: { notBefore: 0, notAfter: Date.UTC(2060, 0) } }],
  ["a leaf valid in these two seconds alone", { [LEAF]: { notBefore: NOW, notAfter: NOW + 1000 } }],
])("%s is accepted", async (_, spoil) => expect(await verdict(await createChain(spoil))).toBe("verified"));

test.each<[string, Record<number, Spoiled>, string | RegExp]>([
  [
    "an expired leaf",
    { [LEAF]: { notAfter: NOW - 1000 } },
    "certificate: validity at the document's time: got 2026-03-04T05:06:07Z, expected 2026-03-04T04:56:07Z to 2026-03-04T05:06:06Z",
  ],
  [
    "a leaf that expired since",
    { [LEAF]: { notAfter: NOW } },
    "certificate: validity at this clock's time: got 2026-03-04T05:06:08Z, expected 2026-03-04T04:56:07Z to 2026-03-04T05:06:07Z",
  ],
  [
    "a leaf of tomorrow",
    { [LEAF]: { notBefore: NOW + DAY } },
    /^certificate: validity at the document's time: got 2026-03-04/,
  ],
  ["an expired instance", { 3: { notAfter: NOW - 1000 } }, /^cabundle\[3\]: validity at the document's time/],
  ["a zone of tomorrow", { 2: { notBefore: NOW + 1000 } }, /^cabundle\[2\]: validity at the document's time/],
  ["an expired root", { 0: { notAfter: NOW - 1000 } }, /^cabundle\[0\]: validity at the document's time/],
  ["a root of tomorrow", { 0: { notBefore: NOW + DAY } }, /^cabundle\[0\]: validity at the document's time/],
  [
    "a leaf that is an authority",
    { [LEAF]: { extensions: [authority(), signs] } },
    "certificate: basicConstraints: got a certificate authority, expected none",
  ],
  [
    "a leaf that may certify",
    { [LEAF]: { extensions: [leaf, encodeKeyUsage([0, 5])] } },
    "certificate: keyUsage: got keyCertSign, expected none",
  ],
  [
    "a leaf that may not sign",
    { [LEAF]: { extensions: [leaf, encodeKeyUsage([1])] } },
    "certificate: keyUsage: got no digitalSignature, expected digitalSignature",
  ],
  [
    "a leaf without key usage",
    { [LEAF]: { extensions: [leaf] } },
    "certificate: got nothing, expected keyUsage",
  ],
  [
    "a leaf without constraints",
    { [LEAF]: { extensions: [signs] } },
    "certificate: got nothing, expected basicConstraints",
  ],
  [
    "an instance that is no authority",
    { 3: { extensions: [leaf, certifies] } },
    "cabundle[3]: basicConstraints: got no certificate authority, expected one",
  ],
  [
    "an instance without constraints",
    { 3: { extensions: [certifies] } },
    "cabundle[3]: got nothing, expected basicConstraints",
  ],
  [
    "an instance that may not certify",
    { 3: { extensions: [authority(0), encodeKeyUsage([0, 6])] } },
    "cabundle[3]: keyUsage: got no keyCertSign, expected keyCertSign",
  ],
  [
    "an instance without key usage",
    { 3: { extensions: [authority(0)] } },
    "cabundle[3]: got nothing, expected keyUsage",
  ],
  ["no extensions at all", { 3: { extensions: [] } }, "cabundle[3]: got nothing, expected basicConstraints"],
  [
    "a root that may not certify",
    { 0: { extensions: [authority(), encodeKeyUsage([0])] } },
    /^cabundle\[0\]: keyUsage/,
  ],
  [
    "a zone with path length 0",
    { 2: { extensions: [authority(0), certifies] } },
    "cabundle[2]: basicConstraints: got path length 0, expected at least 1",
  ],
  [
    "a root with path length 2",
    { 0: { extensions: [authority(2), certifies] } },
    "cabundle[0]: basicConstraints: got path length 2, expected at least 3",
  ],
  [
    "a critical extension that is unknown",
    { 2: { extensions: [authority(1), certifies, critical] } },
    `cabundle[2]: got the critical extension 2.5.29.30, expected ${BASIC_CONSTRAINTS} and ${KEY_USAGE}`,
  ],
  [
    "an extension that comes twice",
    { 2: { extensions: [authority(1), certifies, certifies] } },
    /^cabundle\[2\]: offset \d+ \(0x\w+\): got extension 2\.5\.29\.15 again, expected it once$/,
  ],
  [
    "another issuer's name",
    { 3: { issuer: nameOf("zone2") } },
    'cabundle[3]: issuer: got "zone2", expected "zone"',
  ],
  [
    "a name in another order",
    { 3: { issuer: nameOf("zone").toReversed() } },
    'cabundle[3]: issuer: got "zone", expected "zone"',
  ],
])("%s is refused", async (_, spoil, message) => {
  const got = await verdict(await createChain(spoil));
  expect(got.startsWith(CHAIN), got).toBe(true);
  if (typeof message === "string") expect(got).toBe(CHAIN + message);
  else expect(got.slice(CHAIN.length)).toMatch(message);
});

test("a leaf issued just now is accepted by a clock that is a minute behind, not by one further behind", async () => {
  const chain = await createChain({ [LEAF]: { notBefore: NOW } });
  const bytes = await signed(chain);
  const at = (now: number) => verifyAttestation(bytes, { ...optionsFor(chain), now });
  expect(await at(NOW - 60_000)).toBeDefined();
  await expect(at(NOW - 60_001)).rejects.toThrow("chain: certificate: validity at this clock's time: got");
});

describe("keys", () => {
  const p256 = () =>
    crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);

  test("a P-256 leaf is refused", async () => {
    const chain = await createChain({ [LEAF]: { keys: (await p256()) as CryptoKeyPair } });
    // It signs with ES256, so its envelope already says so; with ES384's header its key is still the wrong one.
    expect(await verdict(chain)).toMatch(/^E_ATTESTATION_FORMAT: envelope: protected header: got a10126/);
    const { keys } = await createChain();
    expect(await verdict({ ...chain, keys })).toBe(
      `${CHAIN}certificate: public key: got P-256, expected P-384, uncompressed`,
    );
  });

  test("a P-256 authority is refused, and so is what it signed", async () => {
    const keys = (await p256()) as CryptoKeyPair;
    expect(await verdict(await createChain({ 2: { keys } }))).toBe(
      `${CHAIN}cabundle[2]: public key: got P-256, expected P-384, uncompressed`,
    );
    expect(await verdict(await createChain({ 2: { signer: keys.privateKey } }))).toBe(
      `${CHAIN}cabundle[2]: signature algorithm: got ecdsa-with-SHA256, expected ecdsa-with-SHA384`,
    );
  });

  test("an RSA leaf is refused", async () => {
    const rsa = {
      name: "RSA-PSS",
      modulusLength: 2048,
      publicExponent: Uint8Array.of(1, 0, 1),
      hash: "SHA-384",
    };
    const { publicKey } = await crypto.subtle.generateKey(rsa, true, ["sign", "verify"]);
    const chain = await createChain({ [LEAF]: { spki: await exportSpki(publicKey) } });
    expect(await verdict(chain)).toBe(
      `${CHAIN}certificate: public key: got another kind, expected P-384, uncompressed`,
    );
  });

  test("a compressed point, and one that is not on the curve, are refused", async () => {
    const { publicKey, privateKey } = await createKeyPair(true);
    const spki = await exportSpki(publicKey);
    const compressed = concat([spki.subarray(0, 23), Uint8Array.of(2), spki.subarray(24, 72)]);
    expect(await verdict(await createChain({ [LEAF]: { spki: compressed } }))).toMatch(CHAIN);
    const off = patched(spki, 119, (spki[119] ?? 0) ^ 1);
    const keys = { publicKey, privateKey };
    expect(await verdict(await createChain({ [LEAF]: { spki: off, keys } }))).toMatch(
      "E_ATTESTATION_SIGNATURE",
    );
    expect(await verdict(await createChain({ 2: { spki: off, keys } }))).toBe(
      `${CHAIN}cabundle[3]: signature: got another key's, expected one by "zone"`,
    );
  });

  test.each([0, 1, 2, 3, 4])(
    "certificate %i signed by a stranger is refused, but for the root",
    async (index) => {
      const { privateKey } = await createKeyPair(false);
      const place = index === LEAF ? "certificate" : `cabundle[${index}]`;
      const got = await verdict(await createChain({ [index]: { signer: privateKey } }));
      // What makes a root trusted is its fingerprint, and nothing else.
      if (index === 0) expect(got).toBe("verified");
      else expect(got).toMatch(`${CHAIN}${place}: signature: got another key's, expected one by`);
    },
  );
});

describe("bundles", () => {
  test("certificates in another order, left out, doubled or of another chain are refused", async () => {
    const chain = await createChain();
    const other = await createChain();
    const { caBundle, certificate } = documentOf(chain);
    const options = optionsFor(chain);
    const [root = certificate, ...rest] = caBundle;
    const bundles = [
      [root, ...rest.toReversed()],
      ...rest.map((left) => [root, ...rest.filter((one) => one !== left)]),
      ...rest.map((doubled) => [root, doubled, ...rest]),
      ...rest.map((_, i) => [root, ...rest.with(i, other.certificates[i + 1] ?? root)]),
      [root, ...rest, certificate],
      [root],
    ];
    for (const [index, bundle] of bundles.entries()) {
      const got = verifyAttestation(await signed(chain, { caBundle: bundle }), options);
      await expect(got, `bundle ${index}`).rejects.toThrow("chain: ");
    }
    const upside = verifyAttestation(await signed(chain, { caBundle: [...rest, root] }), options);
    await expect(upside).rejects.toThrow("root: ");
    const foreign = verifyAttestation(
      await signed(chain, { caBundle: other.certificates.slice(0, LEAF) }),
      options,
    );
    await expect(foreign).rejects.toThrow("root: ");
  });

  test("a certificate of another enclave, swapped in, is refused", async () => {
    const chain = await createChain();
    const { publicKey } = await createKeyPair(false);
    const spki = await exportSpki(publicKey);
    const request = {
      issuer: nameOf("instance"),
      subject: nameOf("enclave"),
      spki,
      serial: Uint8Array.of(7),
    };
    const times = { notBefore: NOW - 1000, notAfter: NOW + DAY, extensions: [leaf, signs] };
    const certificate = await issueCertificate(
      { ...request, ...times },
      chain.keys[3]?.privateKey as CryptoKey,
    );
    const swapped = verifyAttestation(await signed(chain, { certificate }), optionsFor(chain));
    await expect(swapped).rejects.toThrow(
      'signature: got another key\'s, or of other bytes, expected one by "enclave"',
    );
  });

  test("a leaf straight under the root is a chain too", async () => {
    const chain = await createChain({ [LEAF]: { issuer: nameOf("root") } });
    const { publicKey } = chain.keys[LEAF] as CryptoKeyPair;
    const request = { issuer: nameOf("root"), subject: nameOf("enclave"), spki: await exportSpki(publicKey) };
    const times = {
      notBefore: NOW,
      notAfter: NOW + DAY,
      extensions: [leaf, signs],
      serial: Uint8Array.of(1),
    };
    const certificate = await issueCertificate(
      { ...request, ...times },
      chain.keys[0]?.privateKey as CryptoKey,
    );
    const [root] = chain.certificates;
    const document = await signed(chain, { certificate, caBundle: [root] });
    expect(await verifyAttestation(document, optionsFor(chain))).toBeDefined();
  });
});

describe("a certificate's bytes", () => {
  test("none that differ from what was signed are accepted", async () => {
    const { certificates } = await createChain();
    const der = certificates[2] ?? new Uint8Array(0);
    let decoded = 0;
    for (let bit = 0; bit < der.length * 8; bit++) {
      const flipped = patched(der, bit >> 3, (der[bit >> 3] ?? 0) ^ (1 << (bit & 7)));
      const got = refusal(() => {
        const chain = decodeChain(certificates.with(2, flipped));
        decoded++;
        checkChain(chain, []);
      });
      expect(got).toMatch(/^(?:nothing thrown|E_ATTESTATION_CHAIN: cabundle\[[23]\])/);
    }
    expect(decoded).toBeGreaterThan(100);
    for (let length = 0; length < der.length; length++) {
      const cut = refusal(() => decodeChain(certificates.with(2, der.subarray(0, length))));
      expect(cut).toMatch("E_ATTESTATION_CHAIN: cabundle[2]: ");
    }
  });

  test("version 1, and an algorithm that is not the signed one, are refused", async () => {
    const { certificates } = await createChain();
    const der = certificates[2] ?? new Uint8Array(0);
    const { tbs, signature } = decodeCertificate(der);
    const v2 = patched(der, der.indexOf(0xa0) + 4, 1);
    expect(refusal(() => decodeChain(certificates.with(2, v2)))).toBe(
      "E_ATTESTATION_CHAIN: cabundle[2]: version: got 2, expected 3",
    );
    const sha256 = encodeElement(Tag.Sequence, Uint8Array.of(6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2));
    const bits = encodeElement(Tag.BitString, Uint8Array.of(0), signature);
    const mixed = encodeElement(Tag.Sequence, tbs, sha256, bits);
    expect(refusal(() => decodeChain(certificates.with(2, mixed)))).toMatch(
      "signatureAlgorithm: got 1.2.840.10045.4.3.2, expected the algorithm that tbsCertificate names",
    );
    const algorithm = encodeElement(Tag.Sequence, Uint8Array.of(6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3));
    const numbers = [encodeInteger(new Uint8Array(49).fill(1)), encodeInteger(Uint8Array.of(1))];
    const long = encodeElement(Tag.BitString, Uint8Array.of(0), encodeElement(Tag.Sequence, ...numbers));
    const broken = encodeElement(Tag.Sequence, tbs, algorithm, long);
    expect(refusal(() => decodeChain(certificates.with(2, broken)))).toMatch(
      "cabundle[2]: signature: got something else, expected two numbers of 1 to 48 bytes",
    );
  });

  test("are read as OpenSSL reads them", async () => {
    for (const der of (await createChain()).certificates) {
      const theirs = new X509Certificate(der);
      const ours = decodeCertificate(der);
      expect(ours.notBefore).toBe(theirs.validFromDate.getTime());
      expect(ours.notAfter).toBe(theirs.validToDate.getTime());
      expect(theirs.ca).toBe(theirs.subject.includes("enclave") === false);
      expect(`C=${ours.subject[0]?.value}\nCN=${ours.subject[1]?.value}`).toBe(theirs.subject);
    }
  });
});
