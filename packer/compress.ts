/**
 * Compression of a ramdisk. PCRs measure the compressed bytes, so they must be the same on every machine: one exact
 * Node, hence one zlib and one zstd; one thread; nothing of the host in a header.
 */
import { promisify } from "node:util";
import { constants, gzip, zstdCompress } from "node:zlib";
import { CloisterError } from "../format/errors.ts";
import type { Compression } from "./config.ts";
import { NODE } from "./release.ts";

/**
 * zstd's window as a power of two, bytes. 8 MiB: level 9 gains 0.8 % over its own 4 MiB, and the kernel allocates the
 * window once while it unpacks, which an enclave of 192 MiB still affords.
 */
const ZSTD_WINDOW_LOG = 23;
/** Byte 9 of a gzip header (RFC 1952): the operating system, which zlib fills in. */
const GZIP_OS_OFFSET = 9;
const GZIP_OS_UNKNOWN = 255;
/**
 * After a compressed archive the kernel looks for the next on a 4-byte boundary (linux/init/initramfs.c); between
 * archives it skips zero bytes. 512 is what cpio itself pads to.
 */
const RAMDISK_ALIGNMENT = 512;

/**
 * Names everything but the archive that decides the compressed bytes. Throws E_INSTALL when this process has another
 * compressor than the release's, whose bytes others would not get.
 */
export function compressionKey(
  compression: Compression,
  versions: Readonly<Record<string, string | undefined>> = process.versions,
): string {
  const library = { none: undefined, gzip: "zlib", zstd: "zstd" } as const;
  const name = library[compression.algorithm];
  if (name !== undefined && versions[name] !== NODE[name]) {
    throw new CloisterError(
      "E_INSTALL",
      `Node ${versions.node}: got ${name} ${versions[name]}, expected ${NODE[name]}, for its output is measured`,
      { fix: `Run cloister with Node ${NODE.version}: npm put it into node_modules/.bin.` },
    );
  }
  return JSON.stringify([compression, ZSTD_WINDOW_LOG, name && NODE[name]]);
}

/** The archive compressed as asked, padded with zeros to a multiple of 512 bytes. */
export async function compressRamdisk(archive: Uint8Array, compression: Compression): Promise<Uint8Array> {
  return padded(await compress(archive, compression));
}

async function compress(archive: Uint8Array, compression: Compression): Promise<Uint8Array> {
  switch (compression.algorithm) {
    case "none":
      return archive;
    case "gzip": {
      const bytes = await promisify(gzip)(archive, { level: compression.level });
      bytes[GZIP_OS_OFFSET] = GZIP_OS_UNKNOWN;
      return bytes;
    }
    case "zstd":
      // ZSTD_c_nbWorkers stays unset: Node 26.10's one-shot call then returns nothing at all.
      return promisify(zstdCompress)(archive, {
        params: {
          [constants.ZSTD_c_compressionLevel]: compression.level,
          [constants.ZSTD_c_windowLog]: ZSTD_WINDOW_LOG,
        },
      });
  }
}

function padded(bytes: Uint8Array): Uint8Array {
  const excess = bytes.length % RAMDISK_ALIGNMENT;
  if (excess === 0) return bytes;
  const whole = new Uint8Array(bytes.length + RAMDISK_ALIGNMENT - excess);
  whole.set(bytes);
  return whole;
}
