import zlib from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  type EifParts,
  encodeEif,
  layoutEif,
  type SectionSummary,
  SectionType,
  sectionName,
  summarize,
} from "../../format/eif.ts";
import { type DecodedEif, decodeEif } from "../../format/reader.ts";
import { concat, offsets, toHex } from "../../format/struct.ts";
import { refusal, vector } from "./vectors.ts";

const kernel = vector("eif/kernel");
const cmdline = vector("eif/cmdline");
const rd0 = vector("eif/rd0");
const rd1 = vector("eif/rd1");
const metadata = new TextEncoder().encode(
  '{"ImageName":"hello","ImageVersion":"1.0","BuildMetadata":{"BuildTime":"2024-01-02T03:04:05+00:00",' +
    '"BuildTool":"nitro-cli","BuildToolVersion":"1.5.0","OperatingSystem":"Linux","KernelVersion":"4.14.256"},' +
    '"DockerInfo":null,"CustomMetadata":null}',
);
const parts: EifParts = { arch: "x86_64", kernel, cmdline, metadata, ramdisks: [rd0, rd1] };

function partsOf(eif: DecodedEif): EifParts {
  const all = (type: SectionType) =>
    eif.sections.filter((section) => section.type === type).map(({ data }) => data);
  const [kernel, cmdline, metadata, signature] = [
    ...[SectionType.Kernel, SectionType.Cmdline, SectionType.Metadata, SectionType.Signature].map(
      (type) => all(type)[0],
    ),
  ];
  if (!kernel || !cmdline || !metadata) throw new Error("sections are missing");
  const rest = signature === undefined ? {} : { signature };
  return { ...eif.header, kernel, cmdline, metadata, ramdisks: all(SectionType.Ramdisk), ...rest };
}

describe("encodeEif", () => {
  test("writes the bytes that AWS's builder writes", () => {
    expect(encodeEif(parts)).toEqual(vector("eif/A.eif"));
    expect(encodeEif({ ...parts, arch: "aarch64", ramdisks: [rd0] })).toEqual(vector("eif/B.eif"));
  });

  test.each(["A", "B", "S-prime256v1", "S-secp384r1", "S-secp521r1", "A-signed"])(
    "writes %s.eif again byte for byte",
    (name) => {
      const bytes = vector(`eif/${name}.eif`);
      expect(encodeEif(partsOf(decodeEif(bytes)))).toEqual(bytes);
    },
  );

  test("keeps default memory and CPUs", () => {
    const bytes = encodeEif({ ...parts, defaultMemory: 5n << 30n, defaultCpus: 7n });
    expect(decodeEif(bytes).header).toMatchObject({ defaultMemory: 5n << 30n, defaultCpus: 7n });
  });
});

describe("layoutEif", () => {
  const data = [
    { type: SectionType.Kernel, pieces: [kernel.subarray(0, 400), kernel.subarray(400)] },
    { type: SectionType.Cmdline, pieces: [cmdline] },
    { type: SectionType.Metadata, pieces: [metadata] },
    { type: SectionType.Ramdisk, pieces: [rd0] },
    { type: SectionType.Ramdisk, pieces: [new Uint8Array(0), rd1] },
  ];

  test("lets a writer stream pieces whose CRC is known", () => {
    const layout = layoutEif(
      data.map(({ type, pieces }) => ({ ...summarize(type, pieces, zlib.crc32), pieces })),
      { arch: "x86_64" },
    );
    const bytes = concat([
      layout.header,
      ...layout.sections.flatMap(({ header, section }) => [header, ...section.pieces]),
    ]);
    expect(bytes).toEqual(vector("eif/A.eif"));
    expect(layout.totalBytes).toBe(3081);
    expect(layout.crc).toBe(0xef1a90e1);
    expect(layout.sections.map(({ offset }) => offset)).toEqual([548, 1560, 1691, 1947, 2292]);
  });

  test("has the header of the specification", () => {
    const { header } = layoutEif(
      data.map(({ type, pieces }) => summarize(type, pieces)),
      { arch: "x86_64" },
    );
    expect(toHex(header.subarray(0, 28))).toBe("2e656966000400000000000040000000000000000000000200000005");
    expect(toHex(header.subarray(0x21c))).toBe("00000000ef1a90e1");
  });

  test("lays out sections larger than memory", () => {
    const size = 5 * 2 ** 40;
    const sections = data.map(({ type }): SectionSummary => ({ type, size: type === 3 ? size : 1, crc: 0 }));
    const layout = layoutEif(sections, { arch: "aarch64" });
    expect(layout.totalBytes).toBe(548 + 5 * 12 + 3 + 2 * size);
  });

  const type = (...types: SectionType[]) => types.map((type) => ({ type, size: 0, crc: 0 }));
  const { Kernel, Cmdline, Ramdisk, Signature, Metadata } = SectionType;
  test.each<[string, SectionType[], number, string]>([
    [
      "no kernel",
      [Cmdline, Metadata, Ramdisk],
      4,
      "offset 26 (0x1a): Kernel sections: got 0, expected 1 in version 4",
    ],
    [
      "two kernels",
      [Kernel, Kernel, Cmdline, Metadata, Ramdisk],
      4,
      "offset 560 (0x230): Kernel sections: got 2, expected 1 in version 4",
    ],
    [
      "no cmdline",
      [Kernel, Metadata, Ramdisk],
      4,
      "offset 26 (0x1a): Cmdline sections: got 0, expected 1 in version 4",
    ],
    [
      "no ramdisk",
      [Kernel, Cmdline, Metadata],
      4,
      "offset 26 (0x1a): Ramdisk sections: got 0, expected 1 to 32 in version 4",
    ],
    [
      "no metadata",
      [Kernel, Cmdline, Ramdisk],
      4,
      "offset 26 (0x1a): Metadata sections: got 0, expected 1 in version 4",
    ],
    [
      "metadata too early",
      [Kernel, Cmdline, Metadata, Ramdisk],
      3,
      "offset 572 (0x23c): Metadata sections: got 1, expected 0 in version 3",
    ],
    [
      "a signature too early",
      [Kernel, Cmdline, Ramdisk, Signature],
      2,
      "offset 584 (0x248): Signature sections: got 1, expected 0 in version 2",
    ],
    [
      "two signatures",
      [Kernel, Cmdline, Ramdisk, Signature, Signature],
      3,
      "offset 596 (0x254): Signature sections: got 2, expected 0 to 1 in version 3",
    ],
    [
      "a ramdisk first",
      [Ramdisk, Kernel, Cmdline, Metadata],
      4,
      "offset 548 (0x224): got a ramdisk before the kernel, expected the kernel first",
    ],
  ])("refuses %s", (_, types, version, message) => {
    expect(refusal(() => layoutEif(type(...types), { arch: "x86_64", version }))).toBe(
      `E_EIF_SECTIONS: ${message}`,
    );
  });

  test("refuses 33 sections and takes 32", () => {
    const many = (count: number) =>
      type(Kernel, Cmdline, Metadata, ...Array<SectionType>(count - 3).fill(Ramdisk));
    expect(layoutEif(many(32), { arch: "x86_64" }).sections).toHaveLength(32);
    expect(refusal(() => layoutEif(many(33), { arch: "x86_64" }))).toBe(
      "E_EIF_SECTION_COUNT: offset 26 (0x1a): got 33, expected 2 to 32 sections",
    );
  });

  test.each([0, 1, 5])("refuses version %d", (version) => {
    expect(refusal(() => encodeEif({ ...parts, version }))).toBe(
      `E_EIF_VERSION: offset 4 (0x4): got ${version}, expected 2 to 4`,
    );
  });
});

test("section types have their names", () => {
  expect([0, 1, 2, 3, 4, 5, 6].map(sectionName)).toEqual([
    ...[undefined, "Kernel", "Cmdline", "Ramdisk", "Signature", "Metadata", undefined],
  ]);
});

test("a struct whose fields do not add up is a bug", () => {
  expect(() => offsets("thing", { a: 1, b: 2 }, 4)).toThrow("BUG: thing: got 3 bytes, want 4");
});
