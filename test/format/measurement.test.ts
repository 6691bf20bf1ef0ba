import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SectionType } from "../../format/eif.ts";
import {
  type CreateSha384,
  createSha384,
  Measurer,
  measureParent,
  measurePcr8,
} from "../../format/measurement.ts";
import { decodeEif } from "../../format/reader.ts";
import { toHex } from "../../format/struct.ts";
import { vector } from "./vectors.ts";

const nodeSha384: CreateSha384 = () => createHash("sha384");
const hashes = [
  ["@noble/hashes", createSha384],
  ["node:crypto", nodeSha384],
] as const;

const PCR1 =
  "d90dd7675b70460ec70ceb713c815126b25c3d839e6f7e92158ccbd6daa1b6382acdcbaa8282cbfbad21eee284de6a26";
/** PCR2 of every image with one ramdisk; tkhq/qos publishes it. */
const NO_APP =
  "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a";
const A = {
  pcr0: "4138378623ae26f72fdec6f1cb46eb2d57ac0d411b71be5d6c463176fe712d51a7431eb2c6910a49c40035e9a7cdd555",
  pcr1: PCR1,
  pcr2: "e1822bcfae73d2e7530f45ebf544256e7e543aeaad17908743093fc0e2b934b04108b604f971ec8352476f9a30910ccf",
};
const B = { pcr0: PCR1, pcr1: PCR1, pcr2: NO_APP };

function hex(measurer: Measurer): typeof A {
  const { pcr0, pcr1, pcr2 } = measurer.digest();
  return { pcr0: toHex(pcr0), pcr1: toHex(pcr1), pcr2: toHex(pcr2) };
}

describe.each(hashes)("Measurer on %s", (_, create) => {
  test.each([
    ["A.eif", A],
    ["B.eif", B],
    ["S-secp384r1.eif", A],
  ] as const)("measures %s as AWS's builder does", (name, expected) => {
    const measurer = new Measurer(create);
    for (const { type, data } of decodeEif(vector(`eif/${name}`)).sections) {
      measurer.section(type);
      measurer.update(data);
    }
    expect(hex(measurer)).toEqual(expected);
    expect(hex(measurer)).toEqual(expected);
  });

  test("measures app after app from one state", () => {
    const base = new Measurer(create);
    const sections = decodeEif(vector("eif/A.eif")).sections;
    for (const { type, data } of sections.slice(0, 4)) {
      base.section(type);
      base.update(data);
    }
    for (const ramdisk of [Uint8Array.of(1), sections[4]?.data ?? new Uint8Array(0)]) {
      const app = base.copy();
      app.section(SectionType.Ramdisk);
      app.update(ramdisk);
      expect(hex(app).pcr1).toBe(PCR1);
      expect(hex(app).pcr0 === A.pcr0).toBe(ramdisk.length > 1);
    }
    expect(hex(base)).toEqual(B);
  });

  test("does not depend on how data is cut", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 12 }), (chunks) => {
        const [cut, whole] = [new Measurer(create), new Measurer(create)];
        for (const type of [
          SectionType.Kernel,
          SectionType.Ramdisk,
          SectionType.Ramdisk,
          SectionType.Ramdisk,
        ]) {
          cut.section(type);
          whole.section(type);
          for (const chunk of chunks) cut.update(chunk);
          whole.update(Uint8Array.from(chunks.flatMap((chunk) => [...chunk])));
        }
        expect(hex(cut)).toEqual(hex(whole));
      }),
      { numRuns: 30 },
    );
  });

  test("measures the parent without an inner hash", () => {
    expect(toHex(measureParent("i-07e25f3bada361dec", create))).toBe(
      "7021a47677bff47b7623ed573cb71326925d51773cb4f5af33f346d9ffceb3d6e2c4aa85f1e2b352e4b295ff22d16485",
    );
  });

  test("measures a certificate as PCR8", () => {
    const der = vector("attestation/aws-root-g1.der");
    const inner = createHash("sha384").update(der).digest();
    const expected = createHash("sha384").update(new Uint8Array(48)).update(inner).digest("hex");
    expect(toHex(measurePcr8(der, create))).toBe(expected);
  });
});

test("data before any section is a bug", () => {
  expect(() => new Measurer().update(Uint8Array.of(1))).toThrow("BUG");
});

test("shared bytes are hashed once", () => {
  let hashed = 0;
  const counting = (hash = createHash("sha384")): ReturnType<CreateSha384> => ({
    update: (data) => {
      hashed += data.length;
      hash.update(data);
    },
    digest: () => hash.digest(),
    copy: () => counting(hash.copy()),
  });
  const measurer = new Measurer(() => counting());
  const sizes = [1000, 100, 50_000, 700];
  const { Kernel, Cmdline, Ramdisk } = SectionType;
  for (const [index, type] of [Kernel, Cmdline, Ramdisk, Ramdisk].entries()) {
    measurer.section(type);
    measurer.update(new Uint8Array(sizes[index] ?? 0));
  }
  measurer.digest();
  const extensions = 3 * (48 + 48);
  expect(hashed).toBe(1000 + 100 + 50_000 + 2 * 700 + extensions);
});
