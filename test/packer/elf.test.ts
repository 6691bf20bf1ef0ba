import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CloisterError } from "../../format/errors.ts";
import { viewOf } from "../../format/struct.ts";
import {
  ELF_HEADER,
  ELF_HEADER_SIZE,
  elfMachine,
  MACHINE_X86_64,
  PROGRAM_HEADER,
  PROGRAM_HEADER_SIZE,
  stripElf,
} from "../../packer/elf.ts";
import { nodeBinary } from "../../packer/release.ts";
import { failure, folder } from "./folder.ts";

/** Header, one program header that loads bytes [0, 128), then 72 bytes that nothing loads. */
function tinyElf(): Uint8Array {
  const file = new Uint8Array(200).fill(0xee);
  const view = viewOf(file);
  view.setUint32(ELF_HEADER.magic, 0x7f454c46);
  view.setUint8(ELF_HEADER.class, 2);
  view.setUint8(ELF_HEADER.data, 1);
  view.setUint16(ELF_HEADER.machine, 62, true);
  view.setBigUint64(ELF_HEADER.programOffset, 64n, true);
  view.setUint16(ELF_HEADER.programSize, PROGRAM_HEADER_SIZE, true);
  view.setUint16(ELF_HEADER.programCount, 1, true);
  view.setUint32(ELF_HEADER_SIZE + PROGRAM_HEADER.type, 1, true);
  view.setBigUint64(ELF_HEADER_SIZE + PROGRAM_HEADER.offset, 0n, true);
  view.setBigUint64(ELF_HEADER_SIZE + PROGRAM_HEADER.fileSize, 128n, true);
  return file;
}

function changed(change: (view: DataView) => void): Uint8Array {
  const file = tinyElf();
  change(viewOf(file));
  return file;
}

test("what no segment names is dropped, and nothing names a section any more", () => {
  const file = tinyElf();
  const stripped = stripElf(file, "tiny");
  expect(stripped.length).toBe(128);
  expect(stripped.subarray(0, ELF_HEADER.sectionOffset)).toEqual(file.subarray(0, ELF_HEADER.sectionOffset));
  const view = viewOf(stripped);
  expect(view.getBigUint64(ELF_HEADER.sectionOffset, true)).toBe(0n);
  expect(view.getUint16(ELF_HEADER.sectionCount, true)).toBe(0);
  expect(view.getUint16(ELF_HEADER.sectionNames, true)).toBe(0);
  expect(stripped.subarray(ELF_HEADER_SIZE)).toEqual(file.subarray(ELF_HEADER_SIZE, 128));
  expect(stripElf(stripped, "again")).toEqual(stripped);
});

describe("a damaged file is refused", () => {
  const U64_MAX = 2n ** 64n - 1n;
  const segment = ELF_HEADER_SIZE;
  test.each([
    ["nothing", new Uint8Array(0), "no ELF64 little-endian header"],
    ["half a header", tinyElf().subarray(0, 63), "no ELF64 little-endian header"],
    ["another magic", changed((view) => view.setUint8(0, 0x7e)), "no ELF64 little-endian header"],
    ["32-bit", changed((view) => view.setUint8(ELF_HEADER.class, 1)), "no ELF64 little-endian header"],
    ["big-endian", changed((view) => view.setUint8(ELF_HEADER.data, 2)), "no ELF64 little-endian header"],
    [
      "odd program headers",
      changed((view) => view.setUint16(ELF_HEADER.programSize, 32, true)),
      "of 32 bytes",
    ],
    [
      "program headers behind the end",
      changed((view) => view.setBigUint64(ELF_HEADER.programOffset, U64_MAX, true)),
      "program headers up to byte",
    ],
    [
      "too many",
      changed((view) => view.setUint16(ELF_HEADER.programCount, 0xffff, true)),
      "program headers up to",
    ],
    ["none", changed((view) => view.setUint16(ELF_HEADER.programCount, 0, true)), "no segment to load"],
    ["nothing to load", changed((view) => view.setUint32(segment, 4, true)), "no segment to load"],
    [
      "a segment behind the end",
      changed((view) => view.setBigUint64(segment + PROGRAM_HEADER.fileSize, 201n, true)),
      "a segment up to byte 201, expected at most 200",
    ],
    [
      "a segment that wraps around",
      changed((view) => {
        view.setBigUint64(segment + PROGRAM_HEADER.offset, U64_MAX, true);
        view.setBigUint64(segment + PROGRAM_HEADER.fileSize, 2n, true);
      }),
      "a segment up to byte",
    ],
  ])("%s", async (_, file, message) => {
    const error = await failure(() => stripElf(file, "node"));
    expect(error.code).toBe("E_INSTALL");
    expect(error.message).toMatch(/^node: got /);
    expect(error.message).toContain(message);
  });

  test("any damage ends in that error or in a shorter file", () => {
    let stripped = 0;
    const damage = fc.tuple(
      fc.nat(200),
      fc.array(fc.tuple(fc.nat(119), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
    );
    fc.assert(
      fc.property(damage, ([length, bytes]) => {
        const file = tinyElf();
        for (const [offset, value] of bytes) file[offset] = value;
        try {
          expect(stripElf(file.subarray(0, length), "node").length).toBeLessThanOrEqual(length);
          stripped++;
        } catch (error) {
          expect(error).toBeInstanceOf(CloisterError);
        }
      }),
      { numRuns: 2000 },
    );
    expect(stripped).toBeGreaterThan(50);
  });
});

describe("the pinned Node", () => {
  const original = readFileSync(nodeBinary());
  const stripped = stripElf(original, "node");

  test("shrinks by its symbol tables, and its segments stay as they are", () => {
    expect(elfMachine(original)).toBe(MACHINE_X86_64);
    expect(stripped.length).toBe(116_421_696);
    expect(Buffer.compare(stripped.subarray(ELF_HEADER_SIZE), original.subarray(64, stripped.length))).toBe(
      0,
    );
  });

  test("still does all that an enclave needs of it", () => {
    const path = join(folder(), "node");
    writeFileSync(path, stripped, { mode: 0o755 });
    const program = `
      const { createHash, generateKeyPairSync } = require("node:crypto");
      const { getpid } = process.getBuiltinModule("node:ffi").dlopen(null, {
        getpid: { arguments: [], return: "i32" } }).functions;
      generateKeyPairSync("ec", { namedCurve: "P-384" });
      new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0));
      new (require("node:worker_threads").Worker)("", { eval: true }).on("exit", (status) => {
        console.log(getpid() === process.pid, status, createHash("sha384").update("").digest("hex").slice(0, 8));
      });`;
    const { stdout, stderr, status } = spawnSync(path, ["--no-warnings", "-e", program], {
      encoding: "utf8",
    });
    expect({ stdout, stderr, status }).toEqual({ stdout: "true 0 38b060a7\n", stderr: "", status: 0 });
  });

  const strip = spawnSync("strip", ["--version"]);
  test.skipIf(strip.error !== undefined)(
    "keeps every loaded byte that strip(1) keeps (needs binutils)",
    () => {
      const path = join(folder(), "node");
      expect(spawnSync("strip", ["-s", "-o", path, nodeBinary()]).status).toBe(0);
      const reference = readFileSync(path);
      // strip(1) appends section headers, and its own names for sections.
      expect(reference.length - stripped.length).toBeLessThan(64 * 1024);
      const end = stripped.length;
      expect(
        Buffer.compare(stripped.subarray(ELF_HEADER_SIZE), reference.subarray(ELF_HEADER_SIZE, end)),
      ).toBe(0);
    },
  );
});
