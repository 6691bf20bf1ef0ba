/**
 * newc cpio archives, what the kernel unpacks as initramfs. Source: linux Documentation/driver-api/early-userspace/
 * buffer-format.rst and init/initramfs.c. Records are 4-byte aligned: header, name with NUL, data; then a trailer.
 * This file writes; `archive.ts` reads.
 */
import { CloisterError } from "./errors.ts";
import { offsets } from "./struct.ts";

export const CPIO_MAGIC = "070701";
export const CPIO_HEADER_SIZE = 110;
export const CPIO_TRAILER = "TRAILER!!!";
/** Archives are padded to this: the next one in an initramfs must begin 4-byte aligned, compressed or not. */
export const CPIO_BLOCK = 512;
/** PATH_MAX: the kernel skips a record, without a word, whose name with NUL or whose link target is longer. */
const PATH_MAX = 4096;
const U32_MAX = 0xffff_ffff;

/** Widths in bytes; every field is ASCII, all but the magic eight hexadecimal digits. */
export const CPIO = offsets(
  "newc header",
  {
    magic: 6,
    ino: 8,
    mode: 8,
    uid: 8,
    gid: 8,
    nlink: 8,
    mtime: 8, // seconds since 1970
    filesize: 8, // bytes
    devmajor: 8,
    devminor: 8,
    rdevmajor: 8,
    rdevminor: 8,
    namesize: 8, // bytes, with the NUL
    check: 8, // 0 in newc
  },
  CPIO_HEADER_SIZE,
);

/** stat(2)'s file types, the upper bits of a mode. */
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;

/** A path has no leading slash; `mode` is the permission bits, 0 to 0o7777. */
export type CpioEntry =
  | { readonly type: "directory"; readonly path: string; readonly mode: number }
  /** Data in one piece or several; the pieces are passed on, not copied. */
  | {
      readonly type: "file";
      readonly path: string;
      readonly mode: number;
      readonly data: Uint8Array | readonly Uint8Array[];
    }
  | { readonly type: "symlink"; readonly path: string; readonly target: string }
  | {
      readonly type: "character-device";
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

/** One record as it is stored. */
export interface CpioRecord {
  readonly path: string;
  readonly ino: number;
  /** File type and permissions, as stat(2)'s st_mode. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** Of the file system that held it. */
  readonly devmajor: number;
  readonly devminor: number;
  /** Of the device that it is. */
  readonly rdevmajor: number;
  readonly rdevminor: number;
  readonly data: readonly Uint8Array[];
}

/**
 * Entries as records that depend on nothing but the entries: sorted by the bytes of their paths, mtime, owner and
 * device zero, inodes numbered in order. Inodes must not be zeroed with the rest: equal ones mean hard links.
 * Throws E_CPIO for a path that is absolute, not normal, twice there, or in no directory of this archive.
 */
export function makeReproducible(entries: readonly CpioEntry[]): CpioRecord[] {
  const named = entries.map((entry) => ({ entry, name: encodePath(entry.path) }));
  named.sort((a, b) => compareBytes(a.name, b.name));
  const types = new Map<string, CpioEntry["type"]>();
  return named.map(({ entry }, index) => {
    const { path } = entry;
    if (types.has(path)) throw refusal(path, "a second entry", "one");
    const parent = path.slice(0, Math.max(0, path.lastIndexOf("/")));
    if (parent !== "" && types.get(parent) !== "directory") {
      throw refusal(path, `${types.get(parent) ?? "no entry"} at ${parent}`, "a directory there");
    }
    types.set(path, entry.type);
    return {
      path,
      ino: index + 1,
      mode: typeBits[entry.type] | permissions(entry),
      uid: 0,
      gid: 0,
      nlink: entry.type === "directory" ? 2 : 1,
      mtime: 0,
      devmajor: 0,
      devminor: 0,
      rdevmajor: entry.type === "character-device" ? entry.major : 0,
      rdevminor: entry.type === "character-device" ? entry.minor : 0,
      data: contents(entry),
    };
  });
}

/**
 * A reproducible archive of the entries, as pieces to be written one after another; file contents are not copied.
 * All entries are checked before the first piece. Throws E_CPIO, which names the entry.
 */
export function encodeCpio(entries: readonly CpioEntry[]): Iterable<Uint8Array> {
  return encodeRecords(makeReproducible(entries));
}

/** An archive of exactly these records, in this order, padded to CPIO_BLOCK. Throws E_CPIO. */
export function encodeRecords(records: readonly CpioRecord[]): Iterable<Uint8Array> {
  return pieces(records.map((record) => ({ head: encodeHead(record), data: record.data })));
}

const trailer: CpioRecord = {
  ...{ path: CPIO_TRAILER, ino: 0, mode: 0, uid: 0, gid: 0, nlink: 1, mtime: 0 },
  ...{ devmajor: 0, devminor: 0, rdevmajor: 0, rdevminor: 0, data: [] },
};

const zeros = new Uint8Array(CPIO_BLOCK);

function* pieces(
  records: readonly { head: Uint8Array; data: readonly Uint8Array[] }[],
): Generator<Uint8Array> {
  let total = 0;
  for (const { head, data } of [...records, { head: encodeHead(trailer), data: [] }]) {
    yield head;
    yield* data;
    const size = byteLength(data);
    const padding = -size & 3;
    if (padding > 0) yield zeros.subarray(0, padding);
    total += head.length + size + padding;
  }
  const padding = (CPIO_BLOCK - (total % CPIO_BLOCK)) % CPIO_BLOCK;
  if (padding > 0) yield zeros.subarray(0, padding);
}

/** Header, name and NUL, padded to 4 bytes. */
function encodeHead(record: CpioRecord): Uint8Array {
  const name = new TextEncoder().encode(record.path);
  const fields: Record<Exclude<keyof typeof CPIO, "magic">, number> = {
    ino: record.ino,
    mode: record.mode,
    uid: record.uid,
    gid: record.gid,
    nlink: record.nlink,
    mtime: record.mtime,
    filesize: byteLength(record.data),
    devmajor: record.devmajor,
    devminor: record.devminor,
    rdevmajor: record.rdevmajor,
    rdevminor: record.rdevminor,
    namesize: name.length + 1,
    check: 0,
  };
  let text = CPIO_MAGIC;
  for (const [field, value] of Object.entries(fields)) {
    if (!Number.isInteger(value) || value < 0 || value > U32_MAX) {
      throw refusal(`${record.path}: ${field}`, value, `0 to ${U32_MAX}`);
    }
    text += value.toString(16).padStart(8, "0");
  }
  const head = new Uint8Array((CPIO_HEADER_SIZE + name.length + 1 + 3) & ~3);
  new TextEncoder().encodeInto(text, head);
  head.set(name, CPIO_HEADER_SIZE);
  return head;
}

const typeBits = {
  directory: S_IFDIR,
  file: S_IFREG,
  symlink: S_IFLNK,
  "character-device": S_IFCHR,
} as const satisfies Record<CpioEntry["type"], number>;

function permissions(entry: CpioEntry): number {
  if (entry.type === "symlink") return 0o777;
  if (Number.isInteger(entry.mode) && entry.mode >= 0 && entry.mode <= 0o7777) return entry.mode;
  throw refusal(`${entry.path}: mode`, entry.mode, "0 to 4095 (0o7777)");
}

function contents(entry: CpioEntry): readonly Uint8Array[] {
  if (entry.type === "file") return entry.data instanceof Uint8Array ? [entry.data] : entry.data;
  if (entry.type !== "symlink") return [];
  const target = encodeText(entry.path, "link target", entry.target);
  if (target.length === 0 || target.length > PATH_MAX - 1) {
    throw refusal(`${entry.path}: link target`, `${target.length} bytes`, `1 to ${PATH_MAX - 1}`);
  }
  return [target];
}

function encodePath(path: string): Uint8Array {
  const name = encodeText(path, "path", path);
  if (name.length === 0 || name.length > PATH_MAX - 1) {
    throw refusal(
      JSON.stringify(path.slice(0, 40)),
      `a path of ${name.length} bytes`,
      `1 to ${PATH_MAX - 1}`,
    );
  }
  if (path.split("/").some((part) => part === "" || part === "." || part === "..")) {
    throw refusal(JSON.stringify(path), "an absolute or unusual path", "a/b/c, without empty, . or .. parts");
  }
  if (path === CPIO_TRAILER) throw refusal(path, "the name that ends an archive", "another name");
  return name;
}

function encodeText(path: string, what: string, text: string): Uint8Array {
  if (!text.isWellFormed())
    throw refusal(JSON.stringify(path), `half a surrogate pair in its ${what}`, "Unicode text");
  if (text.includes("\0")) throw refusal(JSON.stringify(path), `a NUL in its ${what}`, "none");
  return new TextEncoder().encode(text);
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

// Not `length`: V8 14.6's middle compiler sums lengths of 2 GiB and more in 32 bits, so that two of 2 GiB made 0.
function byteLength(data: readonly Uint8Array[]): number {
  return data.reduce((sum, piece) => sum + piece.byteLength, 0);
}

function refusal(where: string, got: string | number, expected: string): CloisterError {
  return new CloisterError("E_CPIO", `${where}: got ${got}, expected ${expected}`);
}
