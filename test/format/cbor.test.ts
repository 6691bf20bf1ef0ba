import { decode as cborgDecode, encode as cborgEncode } from "cborg";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CBOR_DEPTH_MAX,
  type CborKey,
  CborTag,
  type CborValue,
  decodeCbor,
  encodeCbor,
} from "../../format/cbor.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, refusal, utf8 } from "./vectors.ts";

/** RFC 8949 appendix A, as far as this subset goes. */
const vectors: [hex: string, value: CborValue][] = [
  ["00", 0],
  ["01", 1],
  ["0a", 10],
  ["17", 23],
  ["1818", 24],
  ["1819", 25],
  ["1864", 100],
  ["1903e8", 1000],
  ["1a000f4240", 1_000_000],
  ["1b000000e8d4a51000", 1_000_000_000_000],
  ["1bffffffffffffffff", 18446744073709551615n],
  ["3bffffffffffffffff", -18446744073709551616n],
  ["20", -1],
  ["29", -10],
  ["3863", -100],
  ["3903e7", -1000],
  ["f4", false],
  ["f5", true],
  ["f6", null],
  ["c11a514b67b0", new CborTag(1, 1363896240)],
  ["d74401020304", new CborTag(23, Uint8Array.of(1, 2, 3, 4))],
  ["40", new Uint8Array(0)],
  ["4401020304", Uint8Array.of(1, 2, 3, 4)],
  ["60", ""],
  ["6161", "a"],
  ["62225c", '"\\'],
  ["62c3bc", "ü"],
  ["63e6b0b4", "水"],
  ["64efbbbf61", "\ufeffa"],
  ["64f0908591", "𐅑"],
  ["80", []],
  ["83010203", [1, 2, 3]],
  ["8301820203820405", [1, [2, 3], [4, 5]]],
  [
    `9819${"0102030405060708090a0b0c0d0e0f1011121314151617"}18181819`,
    Array.from({ length: 25 }, (_, i) => i + 1),
  ],
  ["a0", new Map()],
  [
    "a201020304",
    new Map([
      [1, 2],
      [3, 4],
    ]),
  ],
  [
    "a26161016162820203",
    new Map<CborKey, CborValue>([
      ["a", 1],
      ["b", [2, 3]],
    ]),
  ],
  ["826161a161626163", ["a", new Map([["b", "c"]])]],
];

test.each(vectors)("%s is RFC 8949's example", (hex, value) => {
  expect(toHex(encodeCbor(value))).toBe(hex);
  expect(decodeCbor(fromHex(hex))).toEqual(value);
});

/** RFC 8949 appendix A: indefinite lengths. */
test.each<[string, CborValue]>([
  ["5f42010243030405ff", Uint8Array.of(1, 2, 3, 4, 5)],
  ["7f657374726561646d696e67ff", "streaming"],
  ["5fff", new Uint8Array(0)],
  ["7fff", ""],
  ["9fff", []],
  ["9f018202039f0405ffff", [1, [2, 3], [4, 5]]],
  ["83018202039f0405ff", [1, [2, 3], [4, 5]]],
  [
    "bf61610161629f0203ffff",
    new Map<CborKey, CborValue>([
      ["a", 1],
      ["b", [2, 3]],
    ]),
  ],
  ["826161bf61626163ff", ["a", new Map([["b", "c"]])]],
])("%s is read only when indefinite lengths are asked for", (hex, value) => {
  expect(decodeCbor(fromHex(hex), { indefinite: true })).toEqual(value);
  expect(refusal(() => decodeCbor(fromHex(hex)))).toMatch(
    /^E_CBOR: offset \d+ .*: got additional information 31, expected a definite length or value$/,
  );
});

test.each([
  ["", "E_CBOR: offset 0 (0x0): got 0 bytes, expected 1 more"],
  ["0000", "E_CBOR: offset 1 (0x1): got 1 more bytes, expected the end"],
  ["1817", "E_CBOR: offset 0 (0x0): got 23 in 1 bytes, expected its shortest form"],
  ["1900ff", "E_CBOR: offset 0 (0x0): got 255 in 2 bytes, expected its shortest form"],
  ["1a0000ffff", "E_CBOR: offset 0 (0x0): got 65535 in 4 bytes, expected its shortest form"],
  ["1b00000000ffffffff", "E_CBOR: offset 0 (0x0): got 4294967295 in 8 bytes, expected its shortest form"],
  ["5801ff", "E_CBOR: offset 0 (0x0): got 1 in 1 bytes, expected its shortest form"],
  ["19ff", "E_CBOR: offset 1 (0x1): got 1 bytes, expected 2 more"],
  ["1c", "E_CBOR: offset 0 (0x0): got additional information 28, expected a definite length or value"],
  ["4301", "E_CBOR: offset 1 (0x1): got 1 bytes, expected 3 more"],
  ["5bffffffffffffffff", "E_CBOR: offset 9 (0x9): got 0 bytes, expected 18446744073709551615 more"],
  ["9bffffffffffffffff", "E_CBOR: offset 9 (0x9): got 0 bytes, expected 1 more"],
  ["bbffffffffffffffff00", "E_CBOR: offset 10 (0xa): got 0 bytes, expected 1 more"],
  ["a200010002", 'E_CBOR: offset 3 (0x3): got key "0" again, expected it once'],
  ["a2616101616102", 'E_CBOR: offset 4 (0x4): got key "a" again, expected it once'],
  ["a1410001", "E_CBOR: offset 1 (0x1): got another kind of key, expected an integer or text"],
  ["a1f501", "E_CBOR: offset 1 (0x1): got another kind of key, expected an integer or text"],
  ["61ff", "E_CBOR: offset 0 (0x0): got text that is not UTF-8, expected UTF-8"],
  ["63eda080", "E_CBOR: offset 0 (0x0): got text that is not UTF-8, expected UTF-8"],
  ["62c080", "E_CBOR: offset 0 (0x0): got text that is not UTF-8, expected UTF-8"],
  ["f7", "E_CBOR: offset 0 (0x0): got byte 0xf7, expected true, false or null"],
  ["f93c00", "E_CBOR: offset 0 (0x0): got byte 0xf9, expected true, false or null"],
  ["f818", "E_CBOR: offset 0 (0x0): got byte 0xf8, expected true, false or null"],
  ["ff", "E_CBOR: offset 0 (0x0): got byte 0xff, expected true, false or null"],
  ["c1", "E_CBOR: offset 1 (0x1): got 0 bytes, expected 1 more"],
  ["db002000000000000000", "E_CBOR: offset 0 (0x0): got tag 9007199254740992, expected at most 2^53 - 1"],
])("%s is refused", (hex, message) => {
  expect(refusal(() => decodeCbor(fromHex(hex)))).toBe(message);
});

test.each([
  ["1f", "E_CBOR: offset 0 (0x0): got an indefinite length, expected a value"],
  ["3f", "E_CBOR: offset 0 (0x0): got an indefinite length, expected a value"],
  ["df00", "E_CBOR: offset 0 (0x0): got an indefinite length, expected a value"],
  ["5f6161ff", "E_CBOR: offset 1 (0x1): got another item, expected a definite piece of this string"],
  ["5f5f4100ffff", "E_CBOR: offset 1 (0x1): got another item, expected a definite piece of this string"],
  ["7f61c361bcff", "E_CBOR: offset 0 (0x0): got text that is not UTF-8, expected UTF-8"],
  ["bf00ff", "E_CBOR: offset 2 (0x2): got byte 0xff, expected true, false or null"],
  ["9f", "E_CBOR: offset 1 (0x1): got 0 bytes, expected 1 more"],
  ["bf00010002ff", 'E_CBOR: offset 3 (0x3): got key "0" again, expected it once'],
])("%s is refused with indefinite lengths too", (hex, message) => {
  expect(refusal(() => decodeCbor(fromHex(hex), { indefinite: true }))).toBe(message);
});

describe("depth", () => {
  const nested = (levels: number, open: string) => fromHex(`${open.repeat(levels)}00`);

  test.each(["81", "c1", "a100"])("%s may nest 16 times", (open) => {
    decodeCbor(nested(CBOR_DEPTH_MAX, open));
    expect(refusal(() => decodeCbor(nested(CBOR_DEPTH_MAX + 1, open)))).toMatch(
      /got another level, expected at most 16/,
    );
    expect(refusal(() => decodeCbor(nested(100_000, open)))).toMatch(
      /got another level, expected at most 16/,
    );
  });

  test("is the encoder's limit too", () => {
    const wrap = (levels: number): CborValue => (levels === 0 ? 0 : [wrap(levels - 1)]);
    expect(decodeCbor(encodeCbor(wrap(16)))).toEqual(wrap(16));
    expect(() => encodeCbor(wrap(17))).toThrow(RangeError);
  });
});

test.each<[CborValue]>([
  [1.5],
  [Number.NaN],
  [2 ** 53],
  [1n << 64n],
  [-(1n << 64n) - 1n],
  [new CborTag(-1, 0)],
])("%s cannot be written", (value) => {
  expect(() => encodeCbor(value)).toThrow(RangeError);
});

test("ill-formed text cannot be written", () => {
  expect(() => encodeCbor("\ud800")).toThrow(TypeError);
});

test("byte strings are views", () => {
  const bytes = fromHex("43010203");
  expect((decodeCbor(bytes) as Uint8Array).buffer).toBe(bytes.buffer);
});

const { value: anyValue } = fc.letrec<{ value: CborValue }>((tie) => {
  const key = fc.oneof(
    fc.maxSafeInteger(),
    fc.string({ unit: "grapheme" }).filter((text) => text.isWellFormed()),
  );
  return {
    value: fc.oneof(
      { maxDepth: 4 },
      ...[fc.maxSafeInteger(), fc.boolean(), fc.constant(null), fc.uint8Array(), key],
      fc.bigInt({ min: 1n << 53n, max: (1n << 64n) - 1n }),
      fc.bigInt({ min: -(1n << 64n), max: -(1n << 53n) }),
      fc.array(tie("value"), { maxLength: 4 }),
      fc.array(fc.tuple(key, tie("value")), { maxLength: 4 }).map((pairs) => new Map(pairs)),
    ),
  };
});

describe("cborg", () => {
  // cborg sorts map keys unless told not to.
  const unsorted = { mapSorter: () => 0 };

  test("writes the same bytes", () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        expect(toHex(encodeCbor(value))).toBe(toHex(cborgEncode(value, unsorted)));
      }),
      { numRuns: 500 },
    );
  });

  test("reads the same value", () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        const bytes = encodeCbor(value);
        expect(decodeCbor(bytes)).toEqual(value);
        expect(cborgDecode(bytes, { useMaps: true, rejectDuplicateMapKeys: true })).toEqual(value);
      }),
      { numRuns: 500 },
    );
  });

  test("never refuses what we accept of hostile bytes", () => {
    let accepted = 0;
    let refused = 0;
    const damage = fc.tuple(anyValue, fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 3 }));
    const strict = {
      strict: true,
      useMaps: true,
      allowIndefinite: false,
      rejectDuplicateMapKeys: true,
      allowUndefined: false,
    };
    const readTag = (tag: string) => (decode: () => CborValue) => new CborTag(Number(tag), decode());
    const tags = new Proxy({}, { get: (_, tag) => readTag(String(tag)) });
    fc.assert(
      fc.property(damage, ([value, edits]) => {
        const bytes = encodeCbor(value);
        for (const [offset, byte] of edits) bytes[offset % bytes.length] = byte;
        let ours: CborValue;
        try {
          ours = decodeCbor(bytes);
        } catch {
          expect(refusal(() => decodeCbor(bytes))).toMatch(/^E_CBOR: offset /);
          refused++;
          return;
        }
        expect(toHex(encodeCbor(ours))).toBe(toHex(bytes));
        expect(cborgDecode(bytes, { ...strict, tags })).toEqual(ours);
        accepted++;
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(200);
    expect(refused).toBeGreaterThan(200);
  });
});

test("random bytes are refused or mean themselves", () => {
  let accepted = 0;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 24 }), fc.boolean(), (bytes, indefinite) => {
      const outcome = refusal(() => decodeCbor(bytes, { indefinite }));
      expect(outcome).toMatch(/^E_CBOR: offset |^nothing thrown$/);
      if (outcome === "nothing thrown" && !indefinite) {
        expect(encodeCbor(decodeCbor(bytes))).toEqual(bytes);
        accepted++;
      }
    }),
    { numRuns: 5000 },
  );
  expect(accepted).toBeGreaterThan(50);
});

test("a long array costs no more than its input", () => {
  expect(refusal(() => decodeCbor(Uint8Array.of(0x9a, 0xff, 0xff, 0xff, 0xff, ...utf8("x"))))).toMatch(
    /^E_CBOR/,
  );
});
