/** Which huge pages an enclave gets, and what its user hears where there are too few. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { poolNode } from "../../launcher/memory.ts";
import { choosePages, type PagePool, readPagePools, tooFewPages } from "../../launcher/pages.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** Files by path, in a new folder. */
function tree(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), "cloister-pages-"));
  folders.push(folder);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(folder, path, ".."), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

const pools = (large: number, small: number): PagePool[] => [
  { size: GIB, free: large },
  { size: 2 * MIB, free: small },
];

describe("choosing", () => {
  test.each<[name: string, bytes: number, free: PagePool[], expected: unknown]>([
    ["only small pages", 512 * MIB, pools(0, 300), [{ size: 2 * MIB, count: 256 }]],
    ["large pages first", 2 * GIB, pools(5, 9999), [{ size: GIB, count: 2 }]],
    [
      "the rest in small ones",
      GIB + 6 * MIB,
      pools(5, 10),
      [
        { size: GIB, count: 1 },
        { size: 2 * MIB, count: 3 },
      ],
    ],
    ["a large one for a small rest", 512 * MIB, pools(1, 0), [{ size: GIB, count: 1 }]],
    ["no small ones that a large one makes superfluous", 512 * MIB, pools(1, 10), [{ size: GIB, count: 1 }]],
    ["too few", 512 * MIB, pools(0, 255), undefined],
    ["none at all", 2 * MIB, [], undefined],
  ])("%s", (_, bytes, free, expected) => {
    expect(choosePages(bytes, free)).toEqual(expected);
  });

  test("covers what is wanted with pages that are free, and none too many", () => {
    const pool = fc.record({ size: fc.constantFrom(2 * MIB, 32 * MIB, GIB, 16 * GIB), free: fc.nat(600) });
    const sizes = { selector: ({ size }: PagePool) => size, maxLength: 4 };
    let covered = 0;
    fc.assert(
      fc.property(fc.uniqueArray(pool, sizes), fc.integer({ min: 32, max: 20_000 }), (free, units) => {
        const bytes = units * 2 * MIB;
        const chosen = choosePages(bytes, free);
        const available = free.reduce((sum, { size, free }) => sum + size * free, 0);
        expect(chosen !== undefined).toBe(available >= bytes);
        if (chosen === undefined) return;
        covered++;
        const total = chosen.reduce((sum, { size, count }) => sum + size * count, 0);
        expect(total).toBeGreaterThanOrEqual(bytes);
        for (const { size, count } of chosen) {
          expect(count).toBeLessThanOrEqual(free.find((other) => other.size === size)?.free ?? 0);
          // Any page that is there is needed.
          expect(total - size).toBeLessThan(bytes);
        }
        expect(chosen.map(({ size }) => size)).toEqual(chosen.map(({ size }) => size).sort((a, b) => b - a));
      }),
    );
    expect(covered).toBeGreaterThan(10);
  });
});

test("pools of every size the kernel offers, without what is promised and what the driver does not take", () => {
  const folder = tree({
    "hugepages-64kB/free_hugepages": "100\n",
    "hugepages-2048kB/free_hugepages": "50\n",
    "hugepages-2048kB/resv_hugepages": "8\n",
    "hugepages-1048576kB/free_hugepages": "2\n",
    "other/free_hugepages": "1\n",
  });
  expect(readPagePools(undefined, folder)).toEqual([
    { size: GIB, free: 2 },
    { size: 2 * MIB, free: 42 },
  ]);
  expect(readPagePools(undefined, join(folder, "absent"))).toEqual([]);
});

test("too few pages: what there is, and the command that reserves the rest", () => {
  const error = tooFewPages(512 * MIB, pools(0, 100));
  expect(error).toMatchObject({ code: "E_HUGE_PAGES" });
  expect(error.message).toBe("free huge pages: got 0 of 1 GiB, 100 of 2 MiB, expected 512 MiB in all");
  expect(error.fix).toMatch(
    /^Reserve pages: echo \d+ \| sudo tee \/sys\/kernel\/mm\/hugepages\/hugepages-2048kB/,
  );
  expect(tooFewPages(2 * MIB, [], 1).message).toContain("on NUMA node 1: got none");
});

describe("the NUMA node of the CPU pool", () => {
  const twoNodes = { "node0/cpu0": "", "node0/cpu1": "", "node1/cpu2": "", "node1/cpu3": "", has_cpu: "0-1" };

  test.each<[pool: string, files: Readonly<Record<string, string>>, expected: number | undefined]>([
    ["2-3\n", twoNodes, 1],
    ["1\n", twoNodes, 0],
    ["\n", twoNodes, undefined],
    ["9\n", twoNodes, undefined],
    ["2-3\n", { "node0/cpu2": "" }, undefined],
    ["2-3\n", {}, undefined],
  ])("of pool %j with %j", (pool, files, expected) => {
    expect(poolNode(pool, tree(files))).toBe(expected);
  });
});
