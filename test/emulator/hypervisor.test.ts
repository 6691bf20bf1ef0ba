/** The emulated hypervisor on images in memory: what it takes over, what it measures, what it refuses. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { type BootImage, loadImage } from "../../emulator/hypervisor.ts";
import { RegionAllocator, regionsReader } from "../../emulator/memory.ts";
import { EIF_LOAD_OFFSET } from "../../format/abi.ts";
import { encodeEif } from "../../format/eif.ts";
import { CloisterError } from "../../format/errors.ts";
import { bytesReader } from "../../format/reader.ts";
import { toHex } from "../../format/struct.ts";
import { MEMORY_REGION_UNIT, type MemoryRegion } from "../../launcher/device.ts";

const vector = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../vectors/eif/${name}`, import.meta.url)));
const A = vector("A.eif");

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanups.splice(0)) cleanUp();
});

async function load(eif: Uint8Array, machine: "microvm" | "nitro-enclave" = "microvm"): Promise<BootImage> {
  const image = await loadImage(bytesReader(eif), machine);
  cleanups.push(() => image.close());
  return image;
}

function contentOf(descriptor: number): Buffer {
  return readFileSync(`/proc/self/fd/${descriptor}`);
}

function region(size: number): MemoryRegion {
  return { address: 0n, size, bytes: new Uint8Array(size) };
}

test("takes kernel, cmdline and ramdisks out of AWS's vector A, and its PCRs", async () => {
  const image = await load(A);
  expect(contentOf(image.kernel)).toEqual(vector("kernel"));
  expect(contentOf(image.initramfs)).toEqual(Buffer.concat([vector("rd0"), vector("rd1")]));
  expect(image.cmdline).toBe(vector("cmdline").toString());
  const { pcr0, pcr1, pcr2 } = (await image.measure()) ?? {};
  expect(toHex(pcr0 ?? new Uint8Array())).toMatch(/^4138378623ae26f7/);
  expect(toHex(pcr1 ?? new Uint8Array())).toMatch(/^d90dd7675b70460e/);
  expect(toHex(pcr2 ?? new Uint8Array())).toMatch(/^e1822bcfae73d2e7/);
});

test("keeps the image whole for a machine that reads EIFs, and measures the same", async () => {
  const image = await load(A, "nitro-enclave");
  expect(contentOf(image.kernel)).toEqual(A);
  expect(await image.measure()).toEqual(await (await load(A)).measure());
});

test("measuring ends early when the image is closed", async () => {
  const image = await load(A);
  const measured = image.measure();
  image.close();
  expect(await measured).toBeUndefined();
});

describe("enclave memory", () => {
  test("finds the image 8 MiB into regions, wherever they are cut", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 5, maxLength: 8 });
    return fc.assert(
      fc.asyncProperty(sizes, async (units) => {
        const regions = units.map((unit) => region(unit * 1_900_000));
        let rest: Uint8Array = Buffer.concat([Buffer.alloc(EIF_LOAD_OFFSET), A]);
        for (const { bytes, size } of regions) {
          bytes.set(rest.subarray(0, size));
          rest = rest.subarray(size);
        }
        fc.pre(rest.length === 0);
        const image = await loadImage(regionsReader(regions, EIF_LOAD_OFFSET), "microvm");
        expect(contentOf(image.kernel)).toEqual(vector("kernel"));
        image.close();
      }),
      { numRuns: 20 },
    );
  });

  test("a read across regions, at their ends and behind them", () => {
    const regions = [region(4), region(2), region(6)];
    for (const [index, { bytes }] of regions.entries()) bytes.fill(index + 1);
    const reader = regionsReader(regions, 2);
    expect(reader.size).toBe(10);
    expect([...(reader.read(0, 10) as Uint8Array)]).toEqual([1, 1, 2, 2, 3, 3, 3, 3, 3, 3]);
    expect([...(reader.read(2, 2) as Uint8Array)]).toEqual([2, 2]);
    expect([...(reader.read(9, 5) as Uint8Array)]).toEqual([3]);
    expect([...(reader.read(10, 1) as Uint8Array)]).toEqual([]);
  });

  test("allocated regions are aligned, writable, and empty once freed", () => {
    const allocator = new RegionAllocator();
    const regions = allocator.allocate(3 * MEMORY_REGION_UNIT - 5);
    const [{ address, size, bytes }] = regions as [MemoryRegion];
    expect(address % BigInt(MEMORY_REGION_UNIT)).toBe(0n);
    expect(size).toBe(3 * MEMORY_REGION_UNIT);
    expect(bytes.length).toBe(size);
    bytes.fill(7);
    allocator.discard(regions);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    allocator.free(regions);
    allocator.free(regions);
    expect(regions[0]?.bytes.length).toBe(0);
    expect(bytes.length).toBe(0);
  });

  test("memory freed under the hypervisor is an error, not a fault", async () => {
    const allocator = new RegionAllocator();
    const regions = allocator.allocate(16 << 20);
    regions[0]?.bytes.set(A, EIF_LOAD_OFFSET);
    const loading = loadImage(regionsReader(regions, EIF_LOAD_OFFSET), "microvm");
    allocator.free(regions);
    await expect(loading).rejects.toThrow();
  });
});

describe("refuses", () => {
  function damaged(offset: number, byte: number): Uint8Array {
    const copy = Buffer.from(A);
    copy[offset] = byte;
    return copy;
  }

  test.each([
    ["magic", damaged(0, 0), "E_EIF_MAGIC"],
    ["version", damaged(5, 9), "E_EIF_VERSION"],
    ["a bit of the kernel", damaged(600, 1), "E_EIF_CRC"],
    ["an image for aarch64", vector("B.eif"), "E_EIF_ARCH"],
    ["an image cut short", A.subarray(0, 1000), "E_EIF_TRUNCATED"],
    ["memory without an image", new Uint8Array(4096), "E_EIF_MAGIC"],
    ["less memory than the load offset", new Uint8Array(0), "E_EIF_MAGIC"],
  ])("%s", async (_name, bytes, code) => {
    await expect(load(bytes)).rejects.toMatchObject({ code });
  });

  test("any flipped byte and any cut, without a leaked descriptor", async () => {
    const descriptors = () => readdirSync("/proc/self/fd").length;
    await expect(load(damaged(600, 1))).rejects.toThrow();
    const before = descriptors();
    const position = fc.nat(A.length - 1);
    await fc.assert(
      fc.asyncProperty(position, fc.integer({ min: 1, max: 255 }), fc.boolean(), async (at, mask, cut) => {
        const bytes = cut ? A.subarray(0, at) : damaged(at, (A[at] ?? 0) ^ mask);
        await expect(load(bytes)).rejects.toThrow(CloisterError);
      }),
    );
    expect(descriptors()).toBeLessThanOrEqual(before + 1);
  });

  test("memory that goes away while it is copied, without a leaked descriptor", async () => {
    const before = readdirSync("/proc/self/fd").length;
    let reads = 0;
    await load(A).then((image) => image.close());
    const memory = {
      size: A.length,
      // Header, sections and CRC are read first; then the kernel.
      read: (offset: number, length: number) => A.subarray(offset, offset + (++reads > 9 ? 0 : length)),
    };
    await expect(loadImage(memory, "microvm")).rejects.toMatchObject({ code: "E_EIF_TRUNCATED" });
    expect(reads).toBe(10);
    expect(readdirSync("/proc/self/fd").length).toBeLessThanOrEqual(before);
  });

  test.each([
    ["a NUL", "console=ttyS0\0x"],
    ["a byte that is no ASCII", "console=\xff"],
    ["more than a kernel takes", "x".repeat(1800)],
  ])("a cmdline with %s, which QEMU or the kernel would change", async (_name, cmdline) => {
    const eif = encodeEif({
      arch: "x86_64",
      version: 3,
      kernel: vector("kernel"),
      cmdline: Buffer.from(cmdline, "latin1"),
      ramdisks: [vector("rd0")],
    });
    await expect(load(eif)).rejects.toMatchObject({ code: "E_EIF_CMDLINE" });
  });
});
