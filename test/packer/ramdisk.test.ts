import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32, gunzipSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Cache, defaultCacheDirectory } from "../../packer/cache.ts";
import { compressionKey, compressRamdisk } from "../../packer/compress.ts";
import type { Compression } from "../../packer/config.ts";
import { replaceFile } from "../../packer/file.ts";
import { makeRamdisk, type RamdiskOptions } from "../../packer/ramdisk.ts";
import { failure, folder } from "./folder.ts";

const NONE: Compression = { algorithm: "none" };
const ZSTD: Compression = { algorithm: "zstd", level: 9 };
/** Compressible, and longer than one block of either algorithm. */
const ARCHIVE = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 7);

function sha256(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

describe("a compressed ramdisk", () => {
  test.each<[Compression, (data: Uint8Array) => Uint8Array]>([
    [NONE, (data) => data.subarray(0, ARCHIVE.length)],
    [{ algorithm: "gzip", level: 1 }, withoutPadding(gunzipSync)],
    [{ algorithm: "gzip", level: 9 }, withoutPadding(gunzipSync)],
    [{ algorithm: "zstd", level: 1 }, withoutPadding(zstdDecompressSync)],
    [ZSTD, withoutPadding(zstdDecompressSync)],
    [{ algorithm: "zstd", level: 16 }, withoutPadding(zstdDecompressSync)],
  ])("%j holds the archive, and ends on a multiple of 512 bytes in zeros", async (compression, unpack) => {
    const data = await compressRamdisk(ARCHIVE, compression);
    expect(data.length % 512).toBe(0);
    expect(Buffer.compare(unpack(data), ARCHIVE)).toBe(0);
    expect(await compressRamdisk(ARCHIVE, compression)).toEqual(data);
  });

  /** Neither reader takes trailing zeros for its own: they are cut where the last byte that is not zero lies. */
  function withoutPadding(unpack: (data: Uint8Array) => Uint8Array): (data: Uint8Array) => Uint8Array {
    return (data) => {
      let error: unknown;
      for (let end = data.findLastIndex((byte) => byte !== 0) + 1; end <= data.length; end++) {
        try {
          return unpack(data.subarray(0, end));
        } catch (failure) {
          error = failure;
        }
      }
      throw error;
    };
  }

  test("is the same on every machine: these are the digests it had when it was written", async () => {
    expect(sha256(await compressRamdisk(ARCHIVE, ZSTD))).toBe(
      "7901aebee0336d3181129c1afb704710e6783791daad3d02cd006ceeee66aba5",
    );
    expect(sha256(await compressRamdisk(ARCHIVE, { algorithm: "gzip", level: 9 }))).toBe(
      "2fbf4266bfcb115452b2e90ebef3664bcf2cc98d6048af5afdec19545f8df863",
    );
  });

  test("is not made by another Node's compressor, whose bytes could differ", async () => {
    const versions = { ...process.versions, node: "27.0.0", zstd: "1.6.0" };
    expect(await failure(() => compressionKey(ZSTD, versions))).toMatchObject({
      code: "E_INSTALL",
      message: "Node 27.0.0: got zstd 1.6.0, expected 1.5.7, for its output is measured",
    });
    expect(compressionKey(NONE, versions)).toBe(compressionKey(NONE));
    expect(compressionKey({ algorithm: "gzip", level: 9 }, versions)).not.toBe(compressionKey(ZSTD));
  });

  test("names neither time nor system in a gzip header", async () => {
    const data = await compressRamdisk(ARCHIVE, { algorithm: "gzip", level: 9 });
    expect(Buffer.from(data.subarray(0, 10)).toString("hex")).toBe("1f8b08000000000002ff");
  });

  test("needs no zstd window above 8 MiB (RFC 8878, 3.1.1.1.2), which the kernel would have to find", async () => {
    const large = new Uint8Array(9 * 1024 * 1024);
    for (const level of [9, 22]) {
      const data = await compressRamdisk(large, { algorithm: "zstd", level });
      const descriptor = data[4] as number;
      const isSingleSegment = (descriptor & 0x20) !== 0;
      expect(isSingleSegment).toBe(false);
      const window = data[5] as number;
      const base = 2 ** (10 + (window >> 3));
      expect(base + (base / 8) * (window & 7)).toBeLessThanOrEqual(8 * 1024 * 1024);
    }
  });
});

describe("the cache", () => {
  const options = (directory: string, key = "k", compression: Compression = ZSTD): RamdiskOptions => ({
    compression,
    cache: new Cache(directory),
    key,
  });
  const never = (): Uint8Array => {
    throw new Error("made again");
  };
  const entries = (directory: string) => readdirSync(directory).map((name) => join(directory, name));

  test("saves the second time, byte for byte", async () => {
    const directory = join(folder(), "not", "there", "yet");
    const first = await makeRamdisk(() => ARCHIVE, options(directory));
    expect(first).toMatchObject({ archiveBytes: ARCHIVE.length, isFromCache: false });
    expect(first.crc).toBe(crc32(first.data));
    const second = await makeRamdisk(never, options(directory));
    expect(second.isFromCache).toBe(true);
    expect(Buffer.compare(second.data, first.data)).toBe(0);
    expect(second).toMatchObject({ crc: first.crc, archiveBytes: first.archiveBytes });
  });

  test("tells keys, algorithms and levels apart", async () => {
    const directory = folder();
    await makeRamdisk(() => ARCHIVE, options(directory));
    for (const other of [
      options(directory, "k2"),
      options(directory, "k", NONE),
      options(directory, "k", { ...ZSTD, level: 8 }),
    ]) {
      await expect(makeRamdisk(never, other)).rejects.toThrow("made again");
    }
  });

  test("knows an archive by its content when it is given no key", async () => {
    const directory = folder();
    const { compression, cache } = options(directory);
    const other = ARCHIVE.slice();
    other[0] = 1;
    expect((await makeRamdisk(() => ARCHIVE, { compression, cache })).isFromCache).toBe(false);
    expect((await makeRamdisk(() => ARCHIVE, { compression, cache })).isFromCache).toBe(true);
    expect((await makeRamdisk(() => other, { compression, cache })).isFromCache).toBe(false);
  });

  test("a damaged entry is made again", async () => {
    const directory = folder();
    const { data } = await makeRamdisk(() => ARCHIVE, options(directory));
    const [entry = ""] = entries(directory);
    const original = readFileSync(entry);
    const damages: [string, () => void][] = [
      ["empty", () => truncateSync(entry, 0)],
      ["half a head", () => truncateSync(entry, 7)],
      ["head only", () => truncateSync(entry, 16)],
      ["torn", () => truncateSync(entry, original.length - 1)],
      ...[...Array(16).keys(), ...fc.sample(fc.nat(original.length - 1), 20)].map(
        (offset): [string, () => void] => [
          `flipped at ${offset}`,
          () => {
            const bytes = Buffer.from(original);
            bytes[offset] = (bytes[offset] as number) ^ 1;
            writeFileSync(entry, bytes);
          },
        ],
      ),
    ];
    for (const [name, damage] of damages) {
      damage();
      const again = await makeRamdisk(() => ARCHIVE, options(directory));
      expect([name, Buffer.compare(again.data, data), again.archiveBytes]).toEqual([name, 0, ARCHIVE.length]);
      expect([name, Buffer.compare(readFileSync(entry), original)]).toEqual([name, 0]);
    }
  });

  test("that cannot be used is done without", async () => {
    const file = join(folder({ file: "" }), "file");
    expect((await makeRamdisk(() => ARCHIVE, options(file))).isFromCache).toBe(false);
    expect((await makeRamdisk(() => ARCHIVE, options(join(file, "below")))).isFromCache).toBe(false);
  });

  test("is safe among many at once, and keeps nothing half-written", async () => {
    const directory = folder();
    const made = await Promise.all(
      Array.from({ length: 8 }, () => makeRamdisk(() => ARCHIVE, options(directory))),
    );
    expect(new Set(made.map(({ crc }) => crc)).size).toBe(1);
    expect(entries(directory).length).toBe(1);
    expect((await makeRamdisk(never, options(directory))).isFromCache).toBe(true);
  });

  test("stays below 256 MiB: what was not used for longest goes", async () => {
    const directory = folder();
    const cache = new Cache(directory);
    await cache.put("used", [Buffer.from("used")]);
    await cache.put("unused", [Buffer.from("unused")]);
    for (const entry of entries(directory)) utimesSync(entry, 1, 1);
    // Sparse, left by a build that was killed, older than what is read next and younger than what is not.
    writeFileSync(join(directory, ".half.0123"), "");
    truncateSync(join(directory, ".half.0123"), 255 * 1024 * 1024);
    utimesSync(join(directory, ".half.0123"), 2, 2);
    expect(Buffer.from((await cache.get("used")) ?? "").toString()).toBe("used");
    await cache.put("new", [new Uint8Array(1024 * 1024)]);
    expect(await cache.get("used")).toBeDefined();
    expect(await cache.get("new")).toBeDefined();
    expect(await cache.get("unused")).toBeUndefined();
    expect(readdirSync(directory).length).toBe(2);
  });

  test("lies beside the project's packages, else in the user's cache directory", () => {
    const project = folder({ "node_modules/x/package.json": "{}" });
    expect(defaultCacheDirectory(project, {})).toBe(join(project, "node_modules/.cache/cloister"));
    expect(defaultCacheDirectory("/absent", { XDG_CACHE_HOME: "/c" })).toBe("/c/cloister");
    expect(defaultCacheDirectory("/absent", {})).toMatch(/\/\.cache\/cloister$/);
  });
});

describe("a file is replaced", () => {
  const pieces = [Buffer.from("one "), Buffer.from("two")];

  test("whole, and without a trace", async () => {
    const directory = folder({ out: "old" });
    await replaceFile(join(directory, "out"), pieces, { durable: true });
    expect(readFileSync(join(directory, "out"), "utf8")).toBe("one two");
    expect(readdirSync(directory)).toEqual(["out"]);
    expect(statSync(join(directory, "out")).mode & 0o111).toBe(0);
  });

  test("or not at all", async () => {
    const directory = folder({ out: "old", "directory/x": "" });
    function* broken(): Generator<Uint8Array> {
      yield Buffer.from("new");
      throw new Error("half-way");
    }
    const path = join(directory, "out");
    await expect(replaceFile(path, broken(), { durable: true })).rejects.toThrow("half-way");
    await expect(replaceFile(join(directory, "directory"), pieces, { durable: true })).rejects.toThrow(
      "EISDIR",
    );
    await expect(replaceFile(join(directory, "absent/out"), pieces, { durable: true })).rejects.toThrow(
      "ENOENT",
    );
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(directory).sort()).toEqual(["directory", "out"]);
  });
});
