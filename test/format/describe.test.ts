import { createHash } from "node:crypto";
import zlib from "node:zlib";
import { describe, expect, test } from "vitest";
import { decodePem } from "../../format/certificate.ts";
import { describeEif, measureEif } from "../../format/describe.ts";
import { encodeEif, SectionType } from "../../format/eif.ts";
import { encodeMetadata } from "../../format/metadata.ts";
import { bytesReader, decodeEif, readEif } from "../../format/reader.ts";
import { decodeSignatureSection, encodeSignatureSection } from "../../format/signature.ts";
import { toHex } from "../../format/struct.ts";
import { patched, rejection, utf8, vector } from "./vectors.ts";

const PCR0 =
  "4138378623ae26f72fdec6f1cb46eb2d57ac0d411b71be5d6c463176fe712d51a7431eb2c6910a49c40035e9a7cdd555";
const PCR1 =
  "d90dd7675b70460ec70ceb713c815126b25c3d839e6f7e92158ccbd6daa1b6382acdcbaa8282cbfbad21eee284de6a26";
const PCR2 =
  "e1822bcfae73d2e7530f45ebf544256e7e543aeaad17908743093fc0e2b934b04108b604f971ec8352476f9a30910ccf";
const NO_APP =
  "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a";
const PCR8 = {
  prime256v1:
    "6cf551000578c9b45db45e7c34aca5dbc0af51e67ae65dc5833f154ffc2997bc3a1c83e3ca926d10276aa1f897903487",
  secp384r1:
    "eab41e5770954da3ff0a647741b14505e656af3aecf2cd249e26507ff4ad6688434c6dab7afbdeab3d104423d09e3fcf",
  secp521r1:
    "7eed836c46065c81a7c47c1261a6ffa731fc48d703c1b240d5eab222e6906a2757c694fed69f2674a3ac15b23fbca5b3",
};
const HashAlgorithm = "Sha384 { ... }";
const unsigned = { HashAlgorithm, PCR0, PCR1, PCR2 };
const Metadata = {
  BuildTime: "2024-01-02T03:04:05+00:00",
  BuildTool: "nitro-cli",
  BuildToolVersion: "1.5.0",
  OperatingSystem: "Linux",
  KernelVersion: "4.14.256",
  DockerInfo: null,
};

const describeFile = (name: string) => describeEif(bytesReader(vector(`eif/${name}.eif`)));

describe("images of AWS's tools", () => {
  test("unsigned: every key, in nitro-cli's order", async () => {
    expect(JSON.stringify(await describeFile("A"))).toBe(
      JSON.stringify({
        EifVersion: 4,
        Measurements: unsigned,
        IsSigned: false,
        CheckCRC: true,
        ImageName: "hello",
        ImageVersion: "1.0",
        Metadata,
      }),
    );
    expect((await describeFile("B")).Measurements).toEqual({ HashAlgorithm, PCR0: PCR1, PCR1, PCR2: NO_APP });
  });

  test.each([
    ["S-prime256v1", "prime256v1"],
    ["S-secp384r1", "secp384r1"],
    ["S-secp521r1", "secp521r1"],
    ["A-signed", "secp384r1"],
    ["RS", "secp521r1"],
  ] as const)("%s: signed", async (name, key) => {
    const description = await describeFile(name);
    const { Signature, ...certificate } = description.SigningCertificate ?? { Signature: "" };
    expect(JSON.stringify({ ...description, SigningCertificate: certificate })).toBe(
      JSON.stringify({
        EifVersion: 4,
        Measurements: { ...unsigned, PCR8: PCR8[key] },
        IsSigned: true,
        SigningCertificate: {
          IssuerName: {
            commonName: "eif-test",
            countryName: "US",
            organizationName: "Example",
            stateOrProvinceName: "WA",
          },
          Algorithm: "ecdsa-with-SHA384",
          NotBefore: "Nov 21 02:05:14 2026 GMT",
          NotAfter: "Nov 16 02:05:14 2046 GMT",
        },
        CheckCRC: true,
        SignatureCheck: true,
        ImageName: "hello",
        ImageVersion: "1.0",
        Metadata,
      }),
    );
    expect(Signature).toMatch(/^30(:[0-9A-F]{2}){60,140}$/);
  });

  test("a changed kernel shows in CRC and signature, and is still described", async () => {
    const changed = await describeEif(bytesReader(patched(vector("eif/S-secp384r1.eif"), 600, 0xff)));
    expect(changed).toMatchObject({
      CheckCRC: false,
      SignatureCheck: false,
      IsSigned: true,
      ImageName: "hello",
    });
    expect(changed.Measurements.PCR0).not.toBe(PCR0);
    expect(changed.Measurements.PCR2).toBe(PCR2);
  });

  test("a changed signature is not valid", async () => {
    const signed = vector("eif/S-secp384r1.eif");
    const changed = patched(signed, signed.length - 1, (signed[signed.length - 1] ?? 0) ^ 1);
    expect(await describeEif(bytesReader(changed))).toMatchObject({ CheckCRC: false, SignatureCheck: false });
  });
});

const parts = {
  arch: "x86_64" as const,
  kernel: vector("eif/kernel"),
  cmdline: vector("eif/cmdline"),
  ramdisks: [vector("eif/rd0"), vector("eif/rd1")],
};
const signature =
  decodeEif(vector("eif/A-signed.eif")).sections.find(({ type }) => type === SectionType.Signature)?.data ??
  new Uint8Array(0);

describe("versions before metadata", () => {
  test("2: no signature, no metadata", async () => {
    const description = await describeEif(bytesReader(encodeEif({ ...parts, version: 2 })));
    expect(JSON.stringify(description)).toBe(
      JSON.stringify({ EifVersion: 2, Measurements: unsigned, IsSigned: false, CheckCRC: true }),
    );
  });

  test("3: with and without signature", async () => {
    const plain = await describeEif(bytesReader(encodeEif({ ...parts, version: 3 })));
    expect(plain).toEqual({ EifVersion: 3, Measurements: unsigned, IsSigned: false, CheckCRC: true });
    const signed = await describeEif(bytesReader(encodeEif({ ...parts, version: 3, signature })));
    expect(signed).toMatchObject({ EifVersion: 3, IsSigned: true, SignatureCheck: true });
    expect(Object.keys(signed)).toEqual([
      ...["EifVersion", "Measurements", "IsSigned", "SigningCertificate", "CheckCRC", "SignatureCheck"],
    ]);
  });
});

describe("metadata", () => {
  const withCustom = (CustomMetadata: null | string | number[] | Record<string, string>) =>
    encodeEif({
      ...parts,
      metadata: encodeMetadata({
        ...{ ImageName: "n", ImageVersion: "v", DockerInfo: { Id: 1 }, CustomMetadata },
        BuildMetadata: { ...Metadata },
      }),
    });

  test.each([
    [
      { team: "a", BuildTool: "theirs" },
      { ...Metadata, DockerInfo: { Id: 1 }, team: "a", BuildTool: "theirs" },
    ],
    [null, { ...Metadata, DockerInfo: { Id: 1 } }],
    ["text", { ...Metadata, DockerInfo: { Id: 1 }, CustomMetadata: "text" }],
    [[1], { ...Metadata, DockerInfo: { Id: 1 }, CustomMetadata: [1] }],
  ])("custom metadata %j is flattened if it can be", async (custom, expected) => {
    expect((await describeEif(bytesReader(withCustom(custom)))).Metadata).toEqual(expected);
  });

  test("refuses metadata that no tool writes, before reading it", async () => {
    const huge = encodeEif({ ...parts, metadata: new Uint8Array((1 << 20) + 1) });
    expect(await rejection(describeEif(bytesReader(huge)))).toBe(
      "E_EIF_SECTION_SIZE: offset 1691 (0x69b): Metadata section: got 1048577 bytes, expected at most 1048576",
    );
    const broken = encodeEif({ ...parts, metadata: utf8("{}") });
    expect(await rejection(describeEif(bytesReader(broken)))).toMatch(/^E_EIF_METADATA: metadata section: /);
  });
});

test("hashes can be given", async () => {
  let updates = 0;
  const options = {
    createSha384: () => createHash("sha384"),
    crc32: (data: Uint8Array, value?: number) => {
      updates++;
      return zlib.crc32(data, value);
    },
  };
  expect((await describeEif(bytesReader(vector("eif/A.eif")), options)).Measurements).toEqual(unsigned);
  expect(updates).toBeGreaterThan(1);
});

test("measureEif reads no data that is not measured", async () => {
  const bytes = vector("eif/A-signed.eif");
  const reader = bytesReader(bytes);
  const eif = await readEif(reader);
  const reads: number[] = [];
  const watched = {
    size: reader.size,
    read: (offset: number, length: number) => reads.push(offset) && reader.read(offset, length),
  };
  const { pcr0 } = await measureEif(watched as typeof reader, eif);
  expect(toHex(pcr0)).toBe(PCR0);
  expect(reads).toEqual([560, 1572, 1959, 2304]);
});

test("days below ten have OpenSSL's space", async () => {
  const { signingCertificate, signature: message } = decodeSignatureSection(signature);
  const der = decodePem(signingCertificate);
  const at = new TextDecoder("latin1").decode(der).indexOf("261121020514Z");
  const first = patched(der, at, ...utf8("261101020514Z"));
  const pem = `-----BEGIN CERTIFICATE-----\n${btoa(String.fromCharCode(...first))}\n-----END CERTIFICATE-----\n`;
  const section = encodeSignatureSection({ signingCertificate: utf8(pem), signature: message });
  const description = await describeEif(bytesReader(encodeEif({ ...parts, version: 3, signature: section })));
  expect(description.SigningCertificate?.NotBefore).toBe("Nov  1 02:05:14 2026 GMT");
});
