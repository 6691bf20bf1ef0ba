/** `cloister inspect`: what is listed, what is printed, and what hostile images cannot do. */
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { modeText, unpackRamdisk } from "../../cli/unpack.ts";
import { concat } from "../../format/struct.ts";
import { archive, call, file, image, saved } from "./image.ts";

const SMALL = archive(
  { type: "directory", path: "app", mode: 0o1777 },
  file("app/hello.txt", "hello\n", 0o4755),
  { type: "symlink", path: "app/link", target: "hello.txt" },
  { type: "character-device", path: "null", mode: 0o666, major: 1, minor: 3 },
);
const ROWS = [
  ["drwxrwxrwt", "app", 0, undefined],
  ["-rwsr-xr-x", "app/hello.txt", 6, undefined],
  ["lrwxrwxrwx", "app/link", 9, "hello.txt"],
  ["crw-rw-rw-", "null", 0, "1:3"],
];
const rows = (bytes: Uint8Array) =>
  unpackRamdisk(bytes).files.map(({ mode, path, size, points }) => [modeText(mode), path, size, points]);
const paths = (bytes: Uint8Array) => unpackRamdisk(bytes).files.map(({ path }) => path);

function edited(bytes: Uint8Array, offset: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  const index = copy.length + offset;
  copy[index] = (copy[index] ?? 0) ^ 1;
  return copy;
}

/** Zeros up to a multiple of 4 bytes. */
function aligned(bytes: Uint8Array): Uint8Array {
  return concat([bytes, new Uint8Array(-bytes.length & 3)]);
}

describe("a ramdisk's files", () => {
  const padding = Buffer.alloc(512);
  test.each([
    ["stored", SMALL, ["none"]],
    ["gzip", gzipSync(SMALL), ["gzip"]],
    ["zstd, padded", concat([zstdCompressSync(SMALL), padding]), ["zstd"]],
  ])("%s", (_, bytes, compressions) => {
    expect(rows(bytes)).toEqual(ROWS);
    expect(unpackRamdisk(bytes)).toMatchObject({ compressions });
    expect(unpackRamdisk(bytes).unpackedBytes).toBeGreaterThan(600);
    expect(unpackRamdisk(bytes).unlisted).toBeUndefined();
  });

  // The kernel unpacks all of them: a listing that stopped at the first would hide files.
  test("of archives one after another, each stored in its way", () => {
    const [a, b, c] = [archive(file("a", "a")), archive(file("b", "b")), archive(file("c", "c"))];
    const gzip = gzipSync(a);
    const bytes = concat([gzip, padding, zstdCompressSync(b), padding.subarray(0, 3), gzip]);
    const all = concat([aligned(bytes), c]);
    expect(paths(all)).toEqual(["a", "b", "a", "c"]);
    expect(unpackRamdisk(all).compressions).toEqual(["gzip", "zstd", "gzip", "none"]);
  });

  test("behind every field that a gzip header may have", () => {
    const plain = gzipSync(SMALL);
    // RFC 1952: FHCRC 2, FEXTRA 4, FNAME 8, FCOMMENT 16, in this order: extra, name, comment, CRC-16.
    const fields = Buffer.from("\u0002\u0000xxname\u0000comment\u0000cc", "latin1");
    const head = Buffer.from(plain.subarray(0, 10));
    head[3] = 2 | 4 | 8 | 16;
    const member = concat([head, fields, plain.subarray(10)]);
    expect(rows(concat([aligned(member), SMALL]))).toEqual([...ROWS, ...ROWS]);
  });

  test.each([
    [
      "an archive between multiples of 4",
      concat([new Uint8Array(5), SMALL]),
      /offset 5 .*neither an archive/,
    ],
    ["gzip of a wrong CRC", edited(gzipSync(SMALL), -8), /gzip that cannot be unpacked: wrong CRC-32/],
    ["lz4", Buffer.from([0x02, 0x21, 0x4c, 0x18]), /offset 0 .*lz4, which cannot be listed/],
    ["xz", Buffer.from("fd377a585a00", "hex"), /xz, which cannot be listed/],
    ["text behind an archive", concat([SMALL, Buffer.from("junk")]), /neither an archive nor compressed/],
    ["truncated gzip", gzipSync(SMALL).subarray(0, 60), /gzip that cannot be unpacked: unexpected end/],
    ["truncated zstd", zstdCompressSync(SMALL).subarray(0, 60), /zstd that cannot be unpacked/],
    ["a truncated archive", SMALL.subarray(0, 300), /offset \d+/],
    ["compressed junk", gzipSync("junk".repeat(100)), /offset 0 .*07|got "junk/],
  ])("%s is told, not hidden and not fatal", (_, bytes, reason) => {
    expect(unpackRamdisk(bytes).unlisted).toMatch(reason);
  });

  test("are bounded in number and size", () => {
    const bomb = gzipSync(Buffer.alloc(1 << 20));
    const limits = { unpacked: 1000, files: 3 };
    expect(unpackRamdisk(bomb, limits)).toMatchObject({
      unpackedBytes: 0,
      unlisted: expect.stringContaining("gzip that unpacks to more than 1000 bytes"),
    });
    const two = concat([gzipSync(archive(file("a", "a"))), zstdCompressSync(archive(file("b", "b")))]);
    expect(unpackRamdisk(two, { ...limits, unpacked: 600 }).unlisted).toContain("zstd that unpacks to more");
    const many = unpackRamdisk(SMALL, limits);
    expect(many.files.length).toBe(3);
    expect(many.unlisted).toContain("more than 3 files");
  });

  test("of damaged bytes never throw", () => {
    const whole = concat([zstdCompressSync(SMALL), Buffer.alloc(4), gzipSync(SMALL), SMALL]);
    let listed = 0;
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (offset, mask) => {
        const damaged = Uint8Array.from(whole);
        damaged[offset] = (damaged[offset] ?? 0) ^ mask;
        listed += unpackRamdisk(damaged, { unpacked: 1 << 20, files: 100 }).files.length;
      }),
    );
    expect(listed).toBeGreaterThan(0);
  });
});

describe("cloister inspect", () => {
  const parts = {
    cmdline: "console=ttyS0 \u001b]0;evil\u0007",
    ramdisks: [gzipSync(SMALL), archive(file("a\u001b[2J", "x"))],
  };

  test("lists sections and files; names cannot drive the terminal", async () => {
    const { status, stdout } = await call(["inspect", image(parts)]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Ramdisk, in PCR1: \d+ bytes/m);
    expect(stdout).toMatch(/gzip, \d+ bytes unpacked, 4 files/);
    expect(stdout).toContain("-rwsr-xr-x 6 app/hello.txt\n");
    expect(stdout).toContain("lrwxrwxrwx 9 app/link → hello.txt\n");
    expect(stdout).toContain("a\\x1b[2J");
    expect(stdout).toContain("console=ttyS0 \\x1b]0;evil\\x07");
    expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });

  test("--json is one value", async () => {
    const { stdout } = await call(["inspect", image(parts), "--json"]);
    const { Measurements, Sections } = JSON.parse(stdout);
    expect(Measurements.PCR0).toMatch(/^[0-9a-f]{96}$/);
    expect(
      Sections.map(({ Type, Register }: { Type: string; Register?: string }) => [Type, Register]),
    ).toEqual([
      ["Kernel", "PCR1"],
      ["Cmdline", "PCR1"],
      ["Metadata", undefined],
      ["Ramdisk", "PCR1"],
      ["Ramdisk", "PCR2"],
    ]);
    expect(Sections[3].Files[1]).toEqual({
      Path: "app/hello.txt",
      Mode: "-rwsr-xr-x",
      SizeBytes: 6,
      Sha256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    });
  });

  test("prints the file that the kernel would keep, by any spelling of its path", async () => {
    const path = image({
      ramdisks: ["old", "new\u001b[1m\n"].map((text) =>
        archive({ type: "directory", path: "a", mode: 0o755 }, file("a/b", text)),
      ),
    });
    for (const spelling of ["a/b", "/a/b", "./a/b"]) {
      expect(await call(["inspect", path, spelling])).toMatchObject({ status: 0, stdout: "new\u001b[1m\n" });
    }
    expect((await call(["inspect", path, "a/b"], true)).stdout).toBe("new\\x1b[1m\n");
  });

  test.each([
    ["nothing", "E_IMAGE_FILE", "got no such file"],
    ["app", "E_IMAGE_FILE", "app/hello.txt"],
    ["app/link", "E_IMAGE_FILE", "lrwxrwxrwx → hello.txt, expected a file"],
  ])("%s is no file to print", async (name, code, text) => {
    const { status, stderr } = await call(["inspect", image({ ramdisks: [SMALL] }), name]);
    expect([status, stderr.includes(code), stderr.includes(text)]).toEqual([1, true, true]);
  });

  test("bytes that are no text go to a pipe only", async () => {
    const path = image({ ramdisks: [archive(file("x", Buffer.from([0xff, 0])))] });
    expect((await call(["inspect", path, "x"])).status).toBe(0);
    const { status, stderr } = await call(["inspect", path, "x"], true);
    expect([status, stderr]).toEqual([1, expect.stringContaining("2 bytes that are no text")]);
  });

  test("AWS's images are listed, and what is no EIF is refused", async () => {
    const { stdout } = await call(["inspect", "test/vectors/eif/A-signed.eif"]);
    expect(stdout).toMatch(/^Signature: \d+ bytes/m);
    expect(stdout).toContain("not listed: offset 0 (0x0): found neither an archive nor compressed data");
    expect((await call(["inspect", saved(Buffer.from("hello"))])).stderr).toContain("E_EIF_MAGIC");
  });
});
