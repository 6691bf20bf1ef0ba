import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { createKeyPair, exportSpki, issueCertificate } from "../../format/authority.ts";
import { decodeCertificate, encodeName } from "../../format/certificate.ts";
import {
  children,
  decodeInteger,
  decodeOid,
  decodeTime,
  encodeBits,
  encodeElement,
  encodeInteger,
  encodeOid,
  encodeTime,
  readElement,
  Tag,
} from "../../format/der.ts";
import { decodeEcdsaSignature, encodeEcdsaSignature, signEcdsa, verifyEcdsa } from "../../format/ecdsa.ts";
import {
  decodeBasicConstraints,
  decodeExtensions,
  decodeKeyUsage,
  encodeBasicConstraints,
  encodeExtensions,
  encodeKeyUsage,
} from "../../format/extension.ts";
import { concat, toHex } from "../../format/struct.ts";
import { createChain, LEAF, NOW, nameOf } from "./authority.ts";
import { fromHex, refusal } from "./vectors.ts";

describe("DER", () => {
  test.each([
    ["a short element", encodeElement(0x04, Uint8Array.of(1, 2)), "04020102"],
    ["an element of pieces", encodeElement(0x30, Uint8Array.of(5), Uint8Array.of(0)), "30020500"],
    ["an element of 127 bytes", encodeElement(0x04, new Uint8Array(127)).subarray(0, 2), "047f"],
    ["an element of 128 bytes", encodeElement(0x04, new Uint8Array(128)).subarray(0, 3), "048180"],
    ["an element of 65536 bytes", encodeElement(0x04, new Uint8Array(65536)).subarray(0, 5), "0483010000"],
    ["zero", encodeInteger(new Uint8Array(0)), "020100"],
    ["zero, padded", encodeInteger(new Uint8Array(3)), "020100"],
    ["127", encodeInteger(Uint8Array.of(127)), "02017f"],
    ["128", encodeInteger(Uint8Array.of(0, 128)), "02020080"],
    ["a bit string", encodeBits(Uint8Array.of(0x80), 7), "03020780"],
    ["2.5.29.15", encodeOid("2.5.29.15"), "0603551d0f"],
    ["1.2.840.10045.4.3.3", encodeOid("1.2.840.10045.4.3.3"), "06082a8648ce3d040303"],
    ["2.999.1", encodeOid("2.999.1"), "0603883701"],
    [
      "the end of 2049",
      encodeTime(Date.UTC(2049, 11, 31, 23, 59, 59, 999)),
      "170d3439313233313233353935395a",
    ],
    ["2050", encodeTime(Date.UTC(2050, 0)), "180f32303530303130313030303030305a"],
    ["1970", encodeTime(0), "170d3730303130313030303030305a"],
  ])("encodes %s", (_, bytes, hex) => expect(toHex(bytes)).toBe(hex));

  test("decodes what it encodes", () => {
    const oid = fc.tuple(fc.constantFrom("0", "1", "2"), fc.nat(39), fc.array(fc.nat(), { maxLength: 6 }));
    fc.assert(
      fc.property(oid, fc.uint8Array({ maxLength: 50 }), fc.nat(4e9), ([a, b, rest], magnitude, seconds) => {
        const dotted = [a, b, ...rest].join(".");
        expect(decodeOid(readElement(encodeOid(dotted)))).toBe(dotted);
        const first = magnitude.findIndex((byte) => byte !== 0);
        const digits = first < 0 ? new Uint8Array(0) : magnitude.slice(first);
        expect(decodeInteger(readElement(encodeInteger(magnitude)))).toEqual(digits);
        expect(decodeTime(readElement(encodeTime(seconds * 1000 + 999)))).toBe(seconds * 1000);
        const [one, two] = children(
          readElement(encodeElement(Tag.Sequence, encodeInteger(magnitude), encodeOid(dotted))),
        );
        expect([one?.tag, two?.tag]).toEqual([Tag.Integer, Tag.ObjectIdentifier]);
      }),
    );
  });

  test.each(["0200", "0201ff", "02020001", "02020000", "0202807f"])("refuses the integer %s", (hex) => {
    expect(refusal(() => decodeInteger(readElement(fromHex(hex))))).toMatch(
      "E_DER: offset 0 (0x0): got a negative or padded",
    );
  });
});

describe("extensions", () => {
  test.each([
    [{ ca: true, pathLength: undefined }, "30030101ff"],
    [{ ca: true, pathLength: 0 }, "30060101ff020100"],
    [{ ca: true, pathLength: 255 }, "30070101ff020200ff"],
    [{ ca: false, pathLength: undefined }, "3000"],
  ])("basicConstraints %j", (constraints, hex) => {
    const { value, critical } = encodeBasicConstraints(constraints);
    expect([toHex(value), critical]).toEqual([hex, true]);
    expect(decodeBasicConstraints(value)).toEqual(constraints);
  });

  test.each([
    [[0], "03020780"],
    [[0, 1], "030206c0"],
    [[5], "03020204"],
    [[0, 5, 6], "03020186"],
  ])("keyUsage %j", (bits, hex) => {
    expect(toHex(encodeKeyUsage(bits).value)).toBe(hex);
    expect([...decodeKeyUsage(fromHex(hex))]).toEqual(bits);
  });

  test("reads keyUsage's ninth bit", () => expect([...decodeKeyUsage(fromHex("0303070080"))]).toEqual([8]));

  test.each([
    ["a false that is written", () => decodeBasicConstraints(fromHex("3003010100"))],
    ["a true of 1", () => decodeBasicConstraints(fromHex("3003010101"))],
    ["a path length of 256", () => decodeBasicConstraints(fromHex("30070101ff02020100"))],
    ["a negative path length", () => decodeBasicConstraints(fromHex("30060101ff0201ff"))],
    ["constraints with more inside", () => decodeBasicConstraints(fromHex("30090101ff020100020100"))],
    ["constraints with more behind", () => decodeBasicConstraints(fromHex("300000"))],
    ["constraints of another type", () => decodeBasicConstraints(fromHex("0400"))],
    ["keyUsage without bits", () => decodeKeyUsage(fromHex("030100"))],
    ["keyUsage of nothing", () => decodeKeyUsage(fromHex("0300"))],
    ["keyUsage with 8 unused bits", () => decodeKeyUsage(fromHex("03020880"))],
    ["keyUsage of 17 bits", () => decodeKeyUsage(fromHex("030407000080"))],
    ["an extension of a set", () => decodeExtensions(readElement(fromHex("30023100")))],
    ["an extension without a value", () => decodeExtensions(readElement(fromHex("300730050603551d0f")))],
    ["an extension with more", () => decodeExtensions(readElement(fromHex("300b30090603551d0f04000400")))],
  ])("refuses %s", (_, decode) => expect(refusal(decode)).toMatch("E_DER: "));

  test("decodes what it encodes", () => {
    const list = [
      encodeKeyUsage([0]),
      { oid: "1.2.3", critical: false, value: new Uint8Array(0) },
      { oid: "2.5.29.19", critical: true, value: Uint8Array.of(0x30, 0) },
    ];
    expect(decodeExtensions(readElement(encodeExtensions(list)))).toEqual(list);
  });
});

describe("ECDSA", () => {
  test.each(["P-256", "P-384", "P-521"] as const)("%s in both forms", async (curve) => {
    const named = { name: "ECDSA", namedCurve: curve };
    const pair = (await crypto.subtle.generateKey(named, true, ["sign", "verify"])) as CryptoKeyPair;
    const key = { curve, spki: await exportSpki(pair.publicKey) };
    const data = Uint8Array.of(1, 2, 3);
    const signature = await signEcdsa(pair.privateKey, data);
    const der = encodeEcdsaSignature(signature);
    expect(decodeEcdsaSignature(der, curve)).toEqual(signature);
    expect(await verifyEcdsa(key, signature, data)).toBe(true);
    expect(await verifyEcdsa(key, signature, Uint8Array.of(1, 2, 4))).toBe(false);
    expect(await verifyEcdsa(key, concat([signature, Uint8Array.of(0)]), data)).toBe(false);
  });

  test("pads short numbers, refuses none, zero, long and negative ones", () => {
    const short = encodeElement(
      Tag.Sequence,
      encodeInteger(Uint8Array.of(1)),
      encodeInteger(Uint8Array.of(0x80)),
    );
    expect(toHex(decodeEcdsaSignature(short, "P-256"))).toBe(`${"00".repeat(31)}01${"00".repeat(31)}80`);
    for (const hex of [
      "3000",
      "3003020101",
      "3006020100020101",
      "300602010102018f",
      "3009020101020101020101",
      "300602010102010100",
    ]) {
      expect(refusal(() => decodeEcdsaSignature(fromHex(hex), "P-256"))).toMatch("E_DER");
    }
  });
});

test("a name with an attribute that has no number is refused", () => {
  expect(() => encodeName([{ name: "nickname", value: "a" }])).toThrow(
    "got the attribute nickname, expected one",
  );
});

const openssl = spawnSync("openssl", ["version"], { encoding: "utf8" });

describe.skipIf(openssl.status !== 0)("OpenSSL (skipped where there is no openssl)", () => {
  const folder = mkdtempSync(join(tmpdir(), "cloister-authority-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  function pem(name: string, ...certificates: readonly Uint8Array[]): string {
    const path = join(folder, name);
    const armoured = certificates.map((der) => {
      const lines =
        Buffer.from(der)
          .toString("base64")
          .match(/.{1,64}/g) ?? [];
      return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n");
    });
    writeFileSync(path, armoured.join(""));
    return path;
  }

  test("verifies a chain", async () => {
    const { certificates } = await createChain();
    const [root = new Uint8Array(0), ...rest] = certificates;
    const files = [
      pem("root.pem", root),
      pem("between.pem", ...rest.slice(0, -1)),
      pem("leaf.pem", ...rest.slice(-1)),
    ];
    const time = ["-attime", String(NOW / 1000)];
    const words = [
      "verify",
      ...time,
      "-CAfile",
      files[0] ?? "",
      "-untrusted",
      files[1] ?? "",
      files[2] ?? "",
    ];
    expect(certificates.length).toBe(LEAF + 1);
    expect(execFileSync("openssl", words, { encoding: "utf8" })).toMatch(/: OK\n$/);
    const alone = spawnSync("openssl", ["verify", ...time, "-CAfile", files[0] ?? "", files[2] ?? ""]);
    expect(alone.status).not.toBe(0);
  });

  test("reads a certificate as we meant it", async () => {
    const { publicKey, privateKey } = await createKeyPair(false);
    const der = await issueCertificate(
      {
        serial: fromHex("00ff0102"),
        issuer: nameOf("cloister development root"),
        subject: [...nameOf("Ünïcode"), { name: "organizationName", value: "a, b" }],
        notBefore: Date.UTC(2026, 0, 2, 3, 4, 5),
        notAfter: Date.UTC(2051, 0, 2, 3, 4, 5),
        spki: await exportSpki(publicKey),
        extensions: [encodeBasicConstraints({ ca: true, pathLength: 2 }), encodeKeyUsage([0, 5, 6])],
      },
      privateKey,
    );
    const text = execFileSync(
      "openssl",
      ["x509", "-noout", "-text", "-nameopt", "utf8,sep_comma_plus", "-in", pem("one.pem", der)],
      {
        encoding: "utf8",
      },
    );
    for (const line of [
      "Version: 3 (0x2)",
      "Serial Number: 16711938 (0xff0102)",
      "Signature Algorithm: ecdsa-with-SHA384",
      "CN=cloister development root",
      "CN=Ünïcode",
      "Not Before: Jan  2 03:04:05 2026 GMT",
      "Not After : Jan  2 03:04:05 2051 GMT",
      "NIST CURVE: P-384",
      "CA:TRUE, pathlen:2",
      "Digital Signature, Certificate Sign, CRL Sign",
    ]) {
      expect(text).toContain(line);
    }
    expect(decodeCertificate(der).subject.map(({ value }) => value)).toEqual(["US", "Ünïcode", "a, b"]);
  });
});
