/** Archives as they are stored in the EIF, compressed once and then taken from the cache. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { offsets, viewOf } from "../format/struct.ts";
import type { Cache } from "./cache.ts";
import { compressionKey, compressRamdisk } from "./compress.ts";
import type { Compression } from "./config.ts";

export interface Ramdisk {
  /** The section's data: compressed and padded. */
  readonly data: Uint8Array;
  /** CRC-32 of `data`. */
  readonly crc: number;
  /** Size of the archive, bytes. */
  readonly archiveBytes: number;
  readonly isFromCache: boolean;
}

/** A cache entry begins with this; big-endian, widths in bytes. The data follows. */
const ENTRY_SIZE = 16;
const ENTRY = offsets("cache entry", { crc: 4, archiveBytes: 8, headCrc: 4 }, ENTRY_SIZE);

export interface RamdiskOptions {
  readonly compression: Compression;
  readonly cache: Cache;
  /** Equal for equal archives; the archive's digest unless given. */
  readonly key?: string;
}

/** The ramdisk of the archive that `encode` returns; `encode` is not called if its result is known by `key`. */
export async function makeRamdisk(encode: () => Uint8Array, options: RamdiskOptions): Promise<Ramdisk> {
  const { compression, cache } = options;
  const encoded = options.key === undefined ? encode() : undefined;
  const identity =
    options.key ??
    createHash("sha256")
      .update(encoded ?? "")
      .digest("hex");
  const key = `${compressionKey(compression)}\n${identity}`;
  const cached = decodeEntry(await cache.get(key));
  if (cached !== undefined) return cached;
  const archive = encoded ?? encode();
  const data = await compressRamdisk(archive, compression);
  const crc = crc32(data);
  await cache.put(key, [encodeEntryHead(crc, archive.length), data]);
  return { data, crc, archiveBytes: archive.length, isFromCache: false };
}

function encodeEntryHead(crc: number, archiveBytes: number): Uint8Array {
  const head = new Uint8Array(ENTRY_SIZE);
  viewOf(head).setUint32(ENTRY.crc, crc);
  viewOf(head).setBigUint64(ENTRY.archiveBytes, BigInt(archiveBytes));
  viewOf(head).setUint32(ENTRY.headCrc, crc32(head.subarray(0, ENTRY.headCrc)));
  return head;
}

/** Undefined for an entry whose bytes are not those that were stored: it is made again. */
function decodeEntry(entry: Uint8Array | undefined): Ramdisk | undefined {
  if (entry === undefined || entry.length < ENTRY_SIZE) return undefined;
  if (crc32(entry.subarray(0, ENTRY.headCrc)) !== viewOf(entry).getUint32(ENTRY.headCrc)) return undefined;
  const crc = viewOf(entry).getUint32(ENTRY.crc);
  const data = entry.subarray(ENTRY_SIZE);
  if (crc32(data) !== crc) return undefined;
  return {
    data,
    crc,
    archiveBytes: Number(viewOf(entry).getBigUint64(ENTRY.archiveBytes)),
    isFromCache: true,
  };
}
