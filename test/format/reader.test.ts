import zlib from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { encodeEif } from "../../format/eif.ts";
import {
  type ByteReader,
  bytesReader,
  checkAsHypervisor,
  decodeEif,
  eifCrc,
  readEif,
  readSection,
} from "../../format/reader.ts";
import { concat } from "../../format/struct.ts";
import { patched, refusal, rejection, utf8, vector } from "./vectors.ts";

const a = vector("eif/A.eif");
const resigned = vector("eif/RS.eif");

/** The image with its CRC made right again. */
function sealed(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  const crc = zlib.crc32(copy.subarray(548), zlib.crc32(copy.subarray(0, 544)));
  new DataView(copy.buffer).setUint32(544, crc);
  return copy;
}

const offsetField = (index: number) => 28 + 8 * index;
const sizeField = (index: number) => 284 + 8 * index;

/** Each with a right CRC, so that only the fault itself can be found. */
const faults: [name: string, bytes: Uint8Array, message: string][] = [
  [
    "an empty file",
    new Uint8Array(0),
    "E_EIF_MAGIC: offset 0 (0x0): got no bytes, expected 2e 65 69 66 (.eif)",
  ],
  ["two bytes", utf8(".e"), "E_EIF_MAGIC: offset 0 (0x0): got 2e 65, expected 2e 65 69 66 (.eif)"],
  [
    "another file",
    utf8("\x7fELF and more"),
    "E_EIF_MAGIC: offset 0 (0x0): got 7f 45 4c 46, expected 2e 65 69 66 (.eif)",
  ],
  [
    "half a header",
    a.subarray(0, 300),
    "E_EIF_TRUNCATED: offset 300 (0x12c): got the end, expected 548 bytes of header",
  ],
  ["version 1", sealed(patched(a, 4, 0, 1)), "E_EIF_VERSION: offset 4 (0x4): got 1, expected 2 to 4"],
  ["version 5", sealed(patched(a, 4, 0, 5)), "E_EIF_VERSION: offset 4 (0x4): got 5, expected 2 to 4"],
  [
    "one section",
    sealed(patched(a, 26, 0, 1)),
    "E_EIF_SECTION_COUNT: offset 26 (0x1a): got 1, expected 2 to 32 sections",
  ],
  [
    "33 sections",
    sealed(patched(a, 26, 0, 33)),
    "E_EIF_SECTION_COUNT: offset 26 (0x1a): got 33, expected 2 to 32 sections",
  ],
  [
    "65535 sections",
    sealed(patched(a, 26, 255, 255)),
    "E_EIF_SECTION_COUNT: offset 26 (0x1a): got 65535, expected 2 to 32 sections",
  ],
  [
    "section type 0",
    sealed(patched(a, 1560, 0, 0)),
    "E_EIF_SECTION_TYPE: offset 1560 (0x618): got 0, expected a section type, 1 to 5",
  ],
  [
    "section type 6",
    sealed(patched(a, 1560, 0, 6)),
    "E_EIF_SECTION_TYPE: offset 1560 (0x618): got 6, expected a section type, 1 to 5",
  ],
  [
    "a section in the header",
    sealed(patched(a, offsetField(0), 0, 0, 0, 0, 0, 0, 0, 16)),
    "E_EIF_SECTION_OVERLAP: offset 16 (0x10): got a section header, expected none before offset 548 (0x224)",
  ],
  [
    "a section inside another",
    sealed(patched(a, offsetField(1), 0, 0, 0, 0, 0, 0, 3, 0)),
    "E_EIF_SECTION_OVERLAP: offset 768 (0x300): got a section header, expected none before offset 1560 (0x618)",
  ],
  [
    "a gap",
    sealed(patched(a, offsetField(1), 0, 0, 0, 0, 0, 0, 6, 0x19)),
    "E_EIF_SECTION_SIZE: offset 1560 (0x618): got a gap, expected the section header that lies at 1561",
  ],
  [
    "an offset of 2^64 - 1",
    sealed(patched(a, offsetField(4), ...Array(8).fill(255))),
    "E_EIF_TRUNCATED: offset 3081 (0xc09): got the end, expected a section header at 18446744073709551615",
  ],
  [
    "a size of 2^64 - 1",
    sealed(patched(a, 552, ...Array(8).fill(255))),
    "E_EIF_TRUNCATED: offset 3081 (0xc09): got the end, expected Kernel section up to 18446744073709552175",
  ],
  [
    "another size in the table",
    sealed(patched(a, sizeField(0) + 7, 0xe7)),
    "E_EIF_SECTION_SIZE: offset 552 (0x228): section size: got 1000, expected 999, the header's section_sizes",
  ],
  [
    "the re-signed image",
    resigned,
    "E_EIF_SECTION_SIZE: offset 3085 (0xc0d): section size: got 2304, expected 2036, the header's section_sizes",
  ],
  [
    "bytes after the last section",
    sealed(concat([a, Uint8Array.of(1, 2)])),
    "E_EIF_SECTION_SIZE: offset 3081 (0xc09): got 2 more bytes, expected the end of the file",
  ],
  [
    "no metadata",
    sealed(patched(a, 1691, 0, 3)),
    "E_EIF_SECTIONS: offset 26 (0x1a): Metadata sections: got 0, expected 1 in version 4",
  ],
  [
    "a missing last section",
    sealed(a.subarray(0, 2292)),
    "E_EIF_TRUNCATED: offset 2292 (0x8f4): got the end, expected a section header at 2292",
  ],
];

describe.each(faults)("%s", (_, bytes, message) => {
  test("is refused from memory and from a file", async () => {
    expect(refusal(() => decodeEif(bytes))).toBe(message);
    expect(await rejection(readEif(bytesReader(bytes)))).toBe(message);
  });
});

describe("decodeEif", () => {
  test("finds what AWS's builder wrote", () => {
    const { header, sections, totalBytes } = decodeEif(a);
    expect(header).toEqual({
      ...{ version: 4, flags: 0, arch: "x86_64", defaultMemory: 1n << 30n, defaultCpus: 2n, crc: 0xef1a90e1 },
    });
    expect(sections.map(({ type, offset, size }) => [type, offset, size])).toEqual([
      ...[
        [1, 548, 1000],
        [2, 1560, 119],
        [5, 1691, 244],
        [3, 1947, 333],
        [3, 2292, 777],
      ],
    ]);
    expect(sections[0]?.data).toEqual(vector("eif/kernel"));
    expect(sections[4]?.data).toEqual(vector("eif/rd1"));
    expect(totalBytes).toBe(3081);
    expect(decodeEif(vector("eif/B.eif")).header.arch).toBe("aarch64");
  });

  test("refuses a wrong CRC", () => {
    const damaged = patched(a, 600, 0);
    const crc = zlib.crc32(damaged.subarray(548), zlib.crc32(damaged.subarray(0, 544)));
    expect(refusal(() => decodeEif(damaged))).toBe(
      `E_EIF_CRC: offset 544 (0x220): CRC-32: got ef1a90e1, expected ${crc.toString(16)} for these bytes`,
    );
  });

  test("refuses every image with one bit flipped and every part of one", () => {
    for (let bit = 0; bit < a.length * 8; bit++) {
      const byte = bit >> 3;
      expect(refusal(() => decodeEif(patched(a, byte, (a[byte] ?? 0) ^ (1 << (bit & 7)))))).toMatch(
        /^E_EIF_/,
      );
    }
    for (let length = 0; length < a.length; length++) {
      expect(refusal(() => decodeEif(a.subarray(0, length)))).toMatch(/^E_EIF_(MAGIC|TRUNCATED)/);
    }
  });

  test("reads back whatever can be written", () => {
    const bytes = fc.uint8Array({ maxLength: 100 });
    const parts = fc.record({
      arch: fc.constantFrom("x86_64" as const, "aarch64" as const),
      ...{ kernel: bytes, cmdline: bytes, metadata: bytes },
      ramdisks: fc.array(bytes, { minLength: 1, maxLength: 29 }),
      defaultMemory: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    });
    fc.assert(
      fc.property(parts, (parts) => {
        const { header, sections } = decodeEif(encodeEif(parts));
        expect(header.arch).toBe(parts.arch);
        expect(header.defaultMemory).toBe(parts.defaultMemory);
        const { kernel, cmdline, metadata, ramdisks } = parts;
        expect(sections.map(({ data }) => data)).toEqual([kernel, cmdline, metadata, ...ramdisks]);
      }),
    );
  });

  test("survives hostile tables whose CRC is right", () => {
    let refused = 0;
    let accepted = 0;
    const edit = fc.tuple(
      fc.oneof(
        fc.integer({ min: 4, max: 70 }),
        fc.integer({ min: 284, max: 330 }),
        fc.constantFrom(548, 552, 558, 1560),
      ),
      fc.integer({ min: 0, max: 255 }),
    );
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        const bytes = sealed(edits.reduce((image, [offset, value]) => patched(image, offset, value), a));
        const outcome = refusal(() => decodeEif(bytes));
        if (outcome === "nothing thrown") accepted++;
        else refused++;
        expect(outcome).toMatch(/^E_EIF_|^nothing thrown$/);
      }),
      { numRuns: 1000 },
    );
    expect(refused).toBeGreaterThan(100);
    expect(accepted).toBeGreaterThan(10);
  });
});

describe("readEif", () => {
  test("reads 548 bytes and 12 for each section, however large they are", async () => {
    const size = 3 * 2 ** 40;
    const head = sealed(patched(a, sizeField(4), 0, 0, 3, 0, 0, 0, 0, 0));
    const reads: [number, number][] = [];
    const last = Uint8Array.of(0, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0);
    const reader: ByteReader = {
      size: 2292 + 12 + size,
      async read(offset, length) {
        reads.push([offset, length]);
        return offset === 2292 ? last : head.subarray(offset, offset + length);
      },
    };
    const eif = await readEif(reader);
    expect(eif.sections.at(-1)).toEqual({ type: 3, offset: 2292, size });
    expect(reads).toEqual([
      [0, 548],
      [548, 12],
      [1560, 12],
      [1691, 12],
      [1947, 12],
      [2292, 12],
    ]);
  });

  test("reads leniently what AWS's own tools write and read", async () => {
    const lenient = { lenient: true };
    expect((await readEif(bytesReader(resigned), lenient)).sections.at(-1)).toMatchObject({
      type: 4,
      size: 2304,
    });
    const extra = (bytes: number) => bytesReader(concat([a, new Uint8Array(bytes)]));
    expect((await readEif(extra(11), lenient)).totalBytes).toBe(3081);
    expect(await rejection(readEif(extra(12), lenient))).toMatch(
      /^E_EIF_SECTION_SIZE: offset 3081 .*12 more bytes/,
    );
    const gap = concat([a.subarray(0, 1560), Uint8Array.of(9), a.subarray(1560)]);
    [1, 2, 3, 4].forEach((index) => {
      gap[offsetField(index) + 7] = (gap[offsetField(index) + 7] ?? 0) + 1;
    });
    expect((await readEif(bytesReader(gap), lenient)).sections[1]?.offset).toBe(1561);
  });

  test("computes the CRC and yields sections in pieces", async () => {
    const kernel = new Uint8Array(2_500_000).fill(7);
    const bytes = encodeEif({
      arch: "x86_64",
      kernel,
      cmdline: utf8("c"),
      metadata: utf8("{}"),
      ramdisks: [kernel],
    });
    const reader = bytesReader(bytes);
    const eif = await readEif(reader);
    expect(await eifCrc(reader, eif)).toBe(eif.header.crc);
    expect(await eifCrc(reader, eif, zlib.crc32)).toBe(eif.header.crc);
    const sizes: number[] = [];
    for await (const piece of readSection(reader, eif.sections[0] ?? { type: 1, offset: 0, size: 0 })) {
      sizes.push(piece.length);
    }
    expect(sizes).toEqual([1 << 20, 1 << 20, 2_500_000 - (2 << 20)]);
  });

  test("says so when the file shrinks meanwhile", async () => {
    const shrunk = { size: a.length, read: bytesReader(a.subarray(0, 1600)).read };
    expect(await rejection(readEif(shrunk))).toBe(
      "E_EIF_TRUNCATED: offset 1691 (0x69b): got 0 bytes, expected 12 bytes",
    );
  });
});

describe("checkAsHypervisor", () => {
  /** Enclave memory from the image's load address on. */
  const memory = (image: Uint8Array) => bytesReader(concat([image, new Uint8Array(5000).fill(0xcc)]));

  test("takes images that lie in larger memory", async () => {
    expect((await checkAsHypervisor(memory(a), "x86_64")).totalBytes).toBe(3081);
    expect((await checkAsHypervisor(memory(vector("eif/B.eif")), "aarch64", zlib.crc32)).totalBytes).toBe(
      2292,
    );
  });

  test.each([
    [
      "another architecture",
      a,
      "aarch64",
      "E_EIF_ARCH: offset 6 (0x6): got flags 0x0 (x86_64), expected 0x1 (aarch64)",
    ],
    [
      "a flag of other products",
      sealed(patched(a, 6, 2, 0x40)),
      "x86_64",
      "E_EIF_ARCH: offset 6 (0x6): got flags 0x240 (x86_64), expected 0x0 (x86_64)",
    ],
    [
      "a wrong CRC",
      patched(a, 547, 0),
      "x86_64",
      "E_EIF_CRC: offset 544 (0x220): CRC-32: got ef1a9000, expected ef1a90e1 for these bytes",
    ],
    [
      "the re-signed image",
      resigned,
      "x86_64",
      "E_EIF_SECTION_SIZE: offset 3085 (0xc0d): section size: got 2304, expected 2036, the header's section_sizes",
    ],
  ] as const)("refuses %s", async (_, image, arch, message) => {
    expect(await rejection(checkAsHypervisor(memory(image), arch))).toBe(message);
  });

  test("refuses memory that holds no image", async () => {
    expect(await rejection(checkAsHypervisor(bytesReader(new Uint8Array(4096)), "x86_64"))).toMatch(
      /^E_EIF_MAGIC/,
    );
  });
});
