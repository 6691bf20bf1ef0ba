/**
 * The files of a ramdisk, as the kernel would unpack them: archives one after another, each stored or compressed, with
 * zero bytes between. Source: linux init/initramfs.c, lib/decompress.c. Whoever made the image chose its bytes: sizes
 * are bounded, and what cannot be listed is said to be there.
 */
import { createHash } from "node:crypto";
import { crc32, inflateRawSync, type ZlibOptions, type ZstdOptions, zstdDecompressSync } from "node:zlib";
import { type CpioReadRecord, decodeArchive } from "../format/archive.ts";
import { CPIO_MAGIC, S_IFDIR, S_IFLNK, S_IFREG } from "../format/cpio.ts";
import { at, CloisterError } from "../format/errors.ts";
import { concat, viewOf } from "../format/struct.ts";

/** stat(2), the bits of a mode that are the file's type. */
const S_IFMT = 0o170000;

export interface RamdiskFile {
  /** As stored; where a path comes twice, the kernel keeps the later one. */
  readonly path: string;
  /** File type and permissions. */
  readonly mode: number;
  /** Bytes. */
  readonly size: number;
  /** Of its data, hexadecimal; of regular files only. */
  readonly sha256?: string;
  /** A symbolic link's target, or a device's numbers `5:1`. */
  readonly points?: string;
  readonly data: Uint8Array;
}

export interface Unpacked {
  /** How its archives are stored, in their order. */
  readonly compressions: readonly string[];
  /** Bytes of all archives. */
  readonly unpackedBytes: number;
  readonly files: readonly RamdiskFile[];
  /** What of it is not among `files`, and why. */
  readonly unlisted?: string;
}

export interface Limits {
  /** Bytes of all archives together. */
  readonly unpacked: number;
  readonly files: number;
}

const LIMITS: Limits = { unpacked: 2 ** 30, files: 1_000_000 };

interface Member {
  readonly archives: Uint8Array;
  /** How many bytes of the input it took. */
  readonly consumed: number;
}

const unpackers = { gzip: unpackGzip, zstd: unpackZstd } as const;

/** The first bytes of what the kernel tells apart; with those that only it can unpack. */
const MAGICS: readonly (readonly [string, readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["bzip2", [0x42, 0x5a]],
  ["lzma", [0x5d, 0x00]],
  ["xz", [0xfd, 0x37]],
  ["lzo", [0x89, 0x4c]],
  ["lz4", [0x02, 0x21]],
];

/** Take a ramdisk apart. Never throws for what its bytes say. */
export function unpackRamdisk(bytes: Uint8Array, limits: Limits = LIMITS): Unpacked {
  const walk = new Walk(limits);
  try {
    for (let offset = skipZeros(bytes, 0); offset < bytes.length; ) {
      offset = skipZeros(bytes, walk.step(bytes, offset));
    }
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    return walk.result(error.message);
  }
  return walk.result();
}

class Walk {
  readonly #limits: Limits;
  readonly #compressions: string[] = [];
  readonly #files: RamdiskFile[] = [];
  #unpackedBytes = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** List the archive at `offset`; returns where it ends. */
  step(bytes: Uint8Array, offset: number): number {
    const rest = bytes.subarray(offset);
    // The kernel takes an archive at any other offset for compressed data, and gives up.
    if (offset % 4 === 0 && startsWith(rest, Buffer.from(CPIO_MAGIC))) {
      this.#compressions.push("none");
      const end = this.#list(bytes, offset);
      this.#count(end - offset);
      return end;
    }
    const name = MAGICS.find(([, magic]) => startsWith(rest, magic))?.[0];
    if (name === undefined) throw refusal(offset, "neither an archive nor compressed data");
    this.#compressions.push(name);
    if (name !== "gzip" && name !== "zstd") throw refusal(offset, `${name}, which cannot be listed here`);
    const { archives, consumed } = this.#decompress(name, rest, offset);
    this.#count(archives.length);
    for (let inner = skipZeros(archives, 0); inner < archives.length; ) {
      inner = skipZeros(archives, this.#list(archives, inner));
    }
    return offset + consumed;
  }

  result(unlisted?: string): Unpacked {
    const listed = {
      compressions: this.#compressions,
      unpackedBytes: this.#unpackedBytes,
      files: this.#files,
    };
    return unlisted === undefined ? listed : { ...listed, unlisted };
  }

  #decompress(name: keyof typeof unpackers, bytes: Uint8Array, offset: number): Member {
    const most = Math.max(1, this.#limits.unpacked - this.#unpackedBytes);
    try {
      return unpackers[name](bytes, most);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === "ERR_BUFFER_TOO_LARGE") {
        throw refusal(offset, `${name} that unpacks to more than ${this.#limits.unpacked} bytes`);
      }
      throw refusal(offset, `${name} that cannot be unpacked: ${message}`);
    }
  }

  #count(bytes: number): void {
    this.#unpackedBytes += bytes;
  }

  #list(bytes: Uint8Array, start: number): number {
    const records = decodeArchive(bytes, start);
    for (;;) {
      const next = records.next();
      if (next.done) return next.value;
      if (this.#files.length >= this.#limits.files) {
        throw refusal(next.value.offset, `more than ${this.#limits.files} files`);
      }
      this.#files.push(toFile(next.value));
    }
  }
}

/** RFC 1952: sizes of the fixed header and of the trailer, and the flags of the fields between, in their order. */
const GZIP = { header: 10, trailer: 8, crc: 2, extra: 4, name: 8, comment: 16 } as const;

/** One member. Not gunzip: that fails on whatever follows a member and is no other. Throws zlib's errors. */
function unpackGzip(bytes: Uint8Array, most: number): Member {
  const flags = bytes[3] ?? 0;
  let start: number = GZIP.header;
  if (flags & GZIP.extra) start += 2 + ((bytes[start] ?? 0) | ((bytes[start + 1] ?? 0) << 8));
  for (const text of [GZIP.name, GZIP.comment]) {
    if (flags & text) start = bytes.indexOf(0, start) + 1 || bytes.length;
  }
  if (flags & GZIP.crc) start += 2;
  const { buffer, engine } = withEngine(inflateRawSync, bytes.subarray(start), most);
  const end = start + engine.bytesWritten + GZIP.trailer;
  if (end > bytes.length) throw new Error("unexpected end of file");
  const crc = viewOf(bytes).getUint32(end - GZIP.trailer, true);
  if (crc !== crc32(buffer)) throw new Error("wrong CRC-32");
  return { archives: buffer, consumed: end };
}

function unpackZstd(bytes: Uint8Array, most: number): Member {
  const { buffer, engine } = withEngine(zstdDecompressSync, bytes, most);
  return { archives: buffer, consumed: engine.bytesWritten };
}

type Unpack = (bytes: Uint8Array, options: ZlibOptions & ZstdOptions) => unknown;

interface Finished {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

/** With `info` the engine comes along, which knows how much it took; the types of Node do not. */
function withEngine(unpack: Unpack, bytes: Uint8Array, most: number): Finished {
  return unpack(bytes, { maxOutputLength: most, info: true }) as unknown as Finished;
}

function toFile({ path, mode, data, rdevmajor, rdevminor }: CpioReadRecord): RamdiskFile {
  const content = data.length === 1 && data[0] !== undefined ? data[0] : concat(data);
  const type = mode & S_IFMT;
  const common = { path, mode, size: content.length, data: content };
  if (type === S_IFREG) return { ...common, sha256: createHash("sha256").update(content).digest("hex") };
  if (type === S_IFLNK) return { ...common, points: Buffer.from(content).toString() };
  if (type === S_IFDIR) return common;
  return { ...common, points: `${rdevmajor}:${rdevminor}` };
}

function skipZeros(bytes: Uint8Array, start: number): number {
  let offset = start;
  while (offset < bytes.length && bytes[offset] === 0) offset++;
  return offset;
}

function startsWith(bytes: Uint8Array, magic: ArrayLike<number>): boolean {
  return bytes.length >= magic.length && Array.from(magic).every((byte, index) => bytes[index] === byte);
}

function refusal(offset: number, found: string): CloisterError {
  return new CloisterError("E_CPIO", `${at(offset)}: found ${found}`);
}

const TYPES: ReadonlyMap<number, string> = new Map([
  [S_IFDIR, "d"],
  [S_IFREG, "-"],
  [S_IFLNK, "l"],
  [0o020000, "c"],
  [0o060000, "b"],
  [0o010000, "p"],
  [0o140000, "s"],
]);

/** As ls(1) shows it: `drwxr-xr-t`. */
export function modeText(mode: number): string {
  const bits = [0o400, 0o200, 0o100, 0o040, 0o020, 0o010, 0o004, 0o002, 0o001].map((bit, index) =>
    mode & bit ? ("rwx"[index % 3] ?? "") : "-",
  );
  for (const [bit, place, letter] of [
    [0o4000, 2, "s"],
    [0o2000, 5, "s"],
    [0o1000, 8, "t"],
  ] as const) {
    if (mode & bit) bits[place] = bits[place] === "x" ? letter : letter.toUpperCase();
  }
  return `${TYPES.get(mode & S_IFMT) ?? "?"}${bits.join("")}`;
}
