import zlib from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Crc32, crc32, crc32Combine } from "../../format/crc.ts";
import { utf8 } from "./vectors.ts";

describe("crc32", () => {
  test("has the catalogue's check value", () => {
    expect(crc32(utf8("123456789"))).toBe(0xcbf43926);
    expect(crc32(new Uint8Array(0))).toBe(0);
  });

  test("is zlib's, continued at any point", () => {
    const zlibCrc32: Crc32 = zlib.crc32;
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(), (data, cut) => {
        const at = cut % (data.length + 1);
        expect(crc32(data)).toBe(zlibCrc32(data));
        expect(crc32(data.subarray(at), crc32(data.subarray(0, at)))).toBe(zlibCrc32(data));
      }),
    );
  });
});

describe("crc32Combine", () => {
  test("equals the CRC of both, one after the other", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }), (a, b) => {
        expect(crc32Combine(zlib.crc32(a), zlib.crc32(b), b.length)).toBe(zlib.crc32(b, zlib.crc32(a)));
      }),
    );
  });

  test("knows lengths that no 32-bit integer holds", () => {
    // CRC of 2^39 zero bytes, by doubling.
    let zeros = crc32(new Uint8Array(1));
    for (let length = 1; length < 2 ** 39; length *= 2) zeros = crc32Combine(zeros, zeros, length);
    const twice = crc32Combine(zeros, zeros, 2 ** 39);
    const start = crc32(utf8("cloister"));
    const steps = crc32Combine(crc32Combine(start, zeros, 2 ** 39), zeros, 2 ** 39);
    expect(crc32Combine(start, twice, 2 ** 40)).toBe(steps);
    expect(crc32Combine(start, twice, 2 ** 40 % 2 ** 32)).not.toBe(steps);
  });

  test.each([-1, 1.5, 2 ** 53, Number.NaN])("refuses the length %s", (length) => {
    expect(() => crc32Combine(1, 2, length)).toThrow(RangeError);
  });
});
