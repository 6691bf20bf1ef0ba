import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type Certificate, decodeCertificate, decodePem } from "../../format/certificate.ts";
import { decodeBits, decodeOid, decodeTime, readElement } from "../../format/der.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, utf8, vector } from "./vectors.ts";

const names = ["prime256v1", "secp384r1", "secp521r1"] as const;
const curves = { prime256v1: "P-256", secp384r1: "P-384", secp521r1: "P-521" };

describe.each(names)("%s", (name) => {
  const pem = vector(`eif/${name}.pem`);

  test("is what node:crypto reads", () => {
    const oracle = new X509Certificate(pem);
    const certificate = decodeCertificate(decodePem(pem));
    expect(toHex(certificate.der)).toBe(oracle.raw.toString("hex"));
    expect(certificate.notBefore).toBe(oracle.validFromDate.getTime());
    expect(certificate.notAfter).toBe(oracle.validToDate.getTime());
    expect(certificate.signatureAlgorithm).toBe("ecdsa-with-SHA384");
    expect(certificate.publicKey.curve).toBe(curves[name]);
    expect(toHex(certificate.publicKey.spki)).toBe(
      oracle.publicKey.export({ type: "spki", format: "der" }).toString("hex"),
    );
    expect(certificate.issuer).toEqual([
      { name: "countryName", value: "US" },
      { name: "stateOrProvinceName", value: "WA" },
      { name: "organizationName", value: "Example" },
      { name: "commonName", value: "eif-test" },
    ]);
  });
});

describe("decodeCertificate", () => {
  const der = vector("attestation/aws-root-g1.der");

  test("reads AWS's root", () => {
    const root = decodeCertificate(der);
    expect(root.issuer.map(({ name, value }) => `${name}=${value}`)).toEqual([
      ...[
        "countryName=US",
        "organizationName=Amazon",
        "organizationalUnitName=AWS",
        "commonName=aws.nitro-enclaves",
      ],
    ]);
    expect(new Date(root.notBefore).toISOString()).toBe("2019-10-28T13:28:05.000Z");
    expect(new Date(root.notAfter).toISOString()).toBe("2049-10-28T14:28:05.000Z");
  });

  test("answers every truncation with E_DER", () => {
    for (let length = 0; length < der.length; length++) {
      expect(refusal(() => decodeCertificate(der.subarray(0, length)))).toMatch(/^E_DER: offset /);
    }
    expect(refusal(() => decodeCertificate(Uint8Array.of(...der, 0)))).toBe(
      "E_DER: certificate: got 1 more bytes, expected its end",
    );
  });

  test("answers every flipped bit with a certificate or E_DER", () => {
    let refused = 0;
    for (let bit = 0; bit < der.length * 8; bit++) {
      const byte = bit >> 3;
      const flipped = patched(der, byte, (der[byte] ?? 0) ^ (1 << (bit & 7)));
      let certificate: Certificate | undefined;
      const outcome = refusal(() => {
        certificate = decodeCertificate(flipped);
      });
      if (certificate === undefined) refused++;
      expect(outcome).toMatch(/^E_DER: |^nothing thrown$/);
    }
    expect(refused).toBeGreaterThan(500);
  });
});

describe("decodePem", () => {
  test("finds the certificate between other text", () => {
    const pem = new TextDecoder().decode(vector("eif/prime256v1.pem"));
    const noisy = utf8(`Bag Attributes\r\n  friendlyName: x\r\n${pem.replaceAll("\n", "\r\n")}trailing`);
    expect(decodePem(noisy)).toEqual(decodePem(utf8(pem)));
  });

  test.each([
    ["", "E_DER: PEM: got no certificate, expected -----BEGIN CERTIFICATE-----"],
    [
      "-----BEGIN CERTIFICATE-----\nMIIB",
      "E_DER: PEM: got no certificate, expected -----BEGIN CERTIFICATE-----",
    ],
    [
      "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----",
      "E_DER: PEM: got no certificate, expected -----BEGIN CERTIFICATE-----",
    ],
    [
      "-----BEGIN CERTIFICATE-----\nM\n-----END CERTIFICATE-----",
      "E_DER: PEM: got text that is not base64, expected a certificate",
    ],
  ])("refuses %j", (pem, message) => {
    expect(refusal(() => decodePem(utf8(pem)))).toBe(message);
  });
});

describe("DER", () => {
  test.each([
    ["", "offset 0 (0x0): got 0 bytes, expected an element"],
    ["30", "offset 0 (0x0): got 1 bytes, expected an element"],
    ["3001", "offset 1 (0x1): got length 1, expected at most 0"],
    ["1f0100", "offset 0 (0x0): got tag 0x1f, expected a tag of one byte"],
    ["308000", "offset 1 (0x1): got a length in 0 bytes, expected 1 to 4 bytes of length, all there"],
    [
      "308500000000010000",
      "offset 1 (0x1): got a length in 5 bytes, expected 1 to 4 bytes of length, all there",
    ],
    ["3082ff", "offset 1 (0x1): got a length in 2 bytes, expected 1 to 4 bytes of length, all there"],
    ["30810100", "offset 1 (0x1): got length 1, expected its shortest form"],
    [`30820080${"00".repeat(128)}`, "offset 1 (0x1): got length 128, expected its shortest form"],
    ["3084ffffffff", "offset 1 (0x1): got length 4294967295, expected at most 0"],
  ])("refuses %s", (hex, message) => {
    expect(refusal(() => readElement(fromHex(hex)))).toBe(`E_DER: ${message}`);
  });

  test.each([
    ["06092a864886f70d01010b", "1.2.840.113549.1.1.11"],
    ["0603551d0e", "2.5.29.14"],
    ["0603883703", "2.999.3"],
    ["060100", "0.0"],
    ["06014f", "1.39"],
    ["060150", "2.0"],
  ])("%s is the identifier %s", (hex, oid) => {
    expect(decodeOid(readElement(fromHex(hex)))).toBe(oid);
  });

  test.each(["0600", "060188", "06035580 01", "06028001", "06025588", `0641${"55".repeat(65)}`])(
    "refuses the identifier %s",
    (hex) => {
      expect(refusal(() => decodeOid(readElement(fromHex(hex.replace(" ", "")))))).toBe(
        "E_DER: offset 0 (0x0): got a broken object identifier, expected arcs in 1 to 64 bytes",
      );
    },
  );

  test("bit strings of whole bytes alone", () => {
    expect(toHex(decodeBits(readElement(fromHex("030200ff"))))).toBe("ff");
    expect(refusal(() => decodeBits(readElement(fromHex("030201fe"))))).toBe(
      "E_DER: offset 0 (0x0): got a bit string with unused bits, expected whole bytes",
    );
    expect(refusal(() => decodeBits(readElement(fromHex("0300"))))).toMatch(/^E_DER: /);
  });

  const time = (tag: number, text: string) => readElement(Uint8Array.of(tag, text.length, ...utf8(text)));

  test.each([
    [0x17, "491231235959Z", "2049-12-31T23:59:59.000Z"],
    [0x17, "500101000000Z", "1950-01-01T00:00:00.000Z"],
    [0x18, "20500101000000Z", "2050-01-01T00:00:00.000Z"],
    [0x18, "99991231235959Z", "9999-12-31T23:59:59.000Z"],
    [0x17, "240229000000Z", "2024-02-29T00:00:00.000Z"],
  ])("tag %i, %s is a time", (tag, text, iso) => {
    expect(new Date(decodeTime(time(tag, text))).toISOString()).toBe(iso);
  });

  test.each([
    [0x17, "230229000000Z"],
    [0x17, "231301000000Z"],
    [0x17, "230100000000Z"],
    [0x17, "230101240000Z"],
    [0x17, "230101006000Z"],
    [0x17, "2301010000Z"],
    [0x17, "230101000000+0100"],
    [0x18, "230101000000Z"],
    [0x18, "20230101000000.5Z"],
    [0x13, "230101000000Z"],
    [0x13, "20230101000000Z"],
    [0x18, "00010101000000Z"],
    [0x17, "230101000060Z"],
  ])("tag %i, %s is none", (tag, text) => {
    expect(refusal(() => decodeTime(time(tag, text)))).toMatch(
      /^E_DER: offset 0 .*, expected a time in UTC$/,
    );
  });
});
