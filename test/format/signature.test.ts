import { describe, expect, test } from "vitest";
import { type CborValue, encodeCbor } from "../../format/cbor.ts";
import { signCoseSign1 } from "../../format/cose.ts";
import { SectionType } from "../../format/eif.ts";
import { decodeEif } from "../../format/reader.ts";
import {
  decodeSignature,
  decodeSignatureSection,
  encodePcrInfo,
  encodeSignatureSection,
  SIGNATURE_SECTION_MAX,
  verifySignature,
} from "../../format/signature.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, utf8, vector } from "./vectors.ts";

const PCR0 = fromHex(
  "4138378623ae26f72fdec6f1cb46eb2d57ac0d411b71be5d6c463176fe712d51a7431eb2c6910a49c40035e9a7cdd555",
);

function signatureOf(name: string): Uint8Array {
  const section = decodeEif(vector(`eif/${name}.eif`)).sections.find(
    ({ type }) => type === SectionType.Signature,
  );
  return section?.data ?? new Uint8Array(0);
}

/** image-format `src/utils/cbor.rs`, tests. */
test("the signed payload is AWS's, value as an array of integers", () => {
  const value = Uint8Array.from({ length: 48 }, (_, i) => i);
  expect(toHex(encodePcrInfo(0, value))).toBe(
    "a26e72656769737465725f696e646578006e72656769737465725f76616c75659830000102030405060708090a0b0c0d0e0f10111213" +
      "14151617" +
      Array.from({ length: 24 }, (_, i) => `18${(i + 24).toString(16)}`).join(""),
  );
});

/** image-format `src/utils/cbor.rs`, tests: certificate and signature are arrays of integers, not byte strings. */
test("the section is AWS's", () => {
  const signingCertificate = utf8("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
  const section = { signingCertificate, signature: fromHex("d28444a1013822a04040") };
  const bytes = fromHex(
    "81a2737369676e696e675f6365727469666963617465983b182d182d182d182d182d1842184518471849184e18201843184518521854" +
      "1849184618491843184118541845182d182d182d182d182d0a184d1849184918420a182d182d182d182d182d1845184e1844182018" +
      "431845185218541849184618491843184118541845182d182d182d182d182d0a697369676e61747572658a18d21884184418a10118" +
      "38182218a018401840",
  );
  expect(toHex(encodeSignatureSection(section))).toBe(toHex(bytes));
  expect(decodeSignatureSection(bytes)).toEqual(section);
});

describe.each([
  ["S-prime256v1", "P-256", -7],
  ["S-secp384r1", "P-384", -35],
  ["S-secp521r1", "P-521", -36],
  ["A-signed", "P-384", -35],
] as const)("%s.eif", (name, curve, algorithm) => {
  const data = signatureOf(name);

  test("verifies for its own PCR0 alone", async () => {
    const signature = decodeSignature(data);
    expect(signature.certificate.publicKey.curve).toBe(curve);
    expect(signature.message.algorithm).toBe(algorithm);
    expect(await verifySignature(signature, PCR0)).toBe(true);
    expect(await verifySignature(signature, patched(PCR0, 47, 0x54))).toBe(false);
    expect(await verifySignature(signature, new Uint8Array(48))).toBe(false);
    expect(await verifySignature(signature, PCR0.subarray(1))).toBe(false);
  });

  test("is encoded again byte for byte", () => {
    expect(encodeSignatureSection(decodeSignatureSection(data))).toEqual(data);
  });

  test("no flipped bit of the signature verifies", async () => {
    const { message, certificate } = decodeSignature(data);
    for (let bit = 0; bit < message.signature.length * 8; bit += 7) {
      const flipped = patched(
        message.signature,
        bit >> 3,
        (message.signature[bit >> 3] ?? 0) ^ (1 << (bit & 7)),
      );
      expect(await verifySignature({ certificate, message: { ...message, signature: flipped } }, PCR0)).toBe(
        false,
      );
    }
  });
});

test("a signed payload that is longer or shorter is not this PCR0", async () => {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, true, [
    "sign",
    "verify",
  ]);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", pair.publicKey));
  const { certificate } = decodeSignature(signatureOf("A-signed"));
  const signer = { ...certificate, publicKey: { curve: "P-384", spki } } as const;
  const exact = encodePcrInfo(0, PCR0);
  const verdicts = [exact, Uint8Array.of(...exact, 0), exact.subarray(0, -1)].map(async (payload) =>
    verifySignature({ certificate: signer, message: await signCoseSign1(payload, pair.privateKey) }, PCR0),
  );
  expect(await Promise.all(verdicts)).toEqual([true, false, false]);
});

test("a key of another image does not verify", async () => {
  const { message } = decodeSignature(signatureOf("A-signed"));
  const { certificate } = decodeSignature(signatureOf("S-prime256v1"));
  expect(await verifySignature({ certificate, message }, PCR0)).toBe(false);
});

describe("decodeSignature", () => {
  const pem = [...vector("eif/secp384r1.pem")];
  const section = (fields: Record<string, CborValue>) => encodeCbor([new Map(Object.entries(fields))]);
  test.each<[string, Uint8Array, string]>([
    ["nothing", new Uint8Array(0), "offset 0 (0x0): got 0 bytes, expected 1 more"],
    ["too much", new Uint8Array(SIGNATURE_SECTION_MAX + 1), "got 32769 bytes, expected at most 32768"],
    ["an empty array", encodeCbor([]), "got something else, expected an array of maps"],
    ["a map", encodeCbor(new Map()), "got something else, expected an array of maps"],
    [
      "a certificate as byte string",
      section({ signing_certificate: Uint8Array.from(pem), signature: [] }),
      "signing_certificate: got something else, expected an array of bytes",
    ],
    [
      "an integer beyond a byte",
      section({ signing_certificate: [256], signature: [] }),
      "signing_certificate: got something else, expected an array of bytes",
    ],
    [
      "no signature",
      section({ signing_certificate: pem }),
      "signature: got something else, expected an array of bytes",
    ],
    [
      "a certificate that is none",
      section({ signing_certificate: [1, 2], signature: [] }),
      "PEM: got no certificate, expected -----BEGIN CERTIFICATE-----",
    ],
    [
      "an empty signature",
      section({ signing_certificate: pem, signature: [] }),
      "offset 0 (0x0): got 0 bytes, expected 1 more",
    ],
  ])("refuses %s", (_, bytes, message) => {
    expect(refusal(() => decodeSignature(bytes))).toBe(`E_EIF_SIGNATURE: signature section: ${message}`);
  });

  test("answers every truncation and many flipped bits with itself or E_EIF_SIGNATURE", () => {
    const data = signatureOf("S-prime256v1");
    for (let length = 0; length < data.length; length += 3) {
      expect(refusal(() => decodeSignature(data.subarray(0, length)))).toMatch(
        /^E_EIF_SIGNATURE: signature section: /,
      );
    }
    let refused = 0;
    for (let bit = 0; bit < data.length * 8; bit += 11) {
      const flipped = patched(data, bit >> 3, (data[bit >> 3] ?? 0) ^ (1 << (bit & 7)));
      const outcome = refusal(() => decodeSignature(flipped));
      if (outcome !== "nothing thrown") refused++;
      expect(outcome).toMatch(/^E_EIF_SIGNATURE: signature section: |^nothing thrown$/);
    }
    expect(refused).toBeGreaterThan(100);
  });
});
