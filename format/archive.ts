/**
 * Read newc archives. Source: see cpio.ts. As in an initramfs, several may follow each other with zero bytes between.
 */
import { CPIO, CPIO_HEADER_SIZE, CPIO_MAGIC, CPIO_TRAILER, type CpioRecord } from "./cpio.ts";
import { at, mismatch } from "./errors.ts";

export interface CpioReadRecord extends CpioRecord {
  /** Where its header begins, bytes. */
  readonly offset: number;
}

/**
 * The records of all archives in `bytes`, in order, without trailers; data are views. Paths come as stored: they may be
 * absolute or climb with `..`, so they are not fit for joining to a directory. Bounded by the input's length.
 * Throws E_CPIO with the byte offset for anything but well-formed archives of magic 070701.
 */
export function* decodeCpio(bytes: Uint8Array): Generator<CpioReadRecord> {
  let offset = skipZeros(bytes, 0);
  while (offset < bytes.length) offset = skipZeros(bytes, yield* decodeArchive(bytes, offset));
}

/** The records of the one archive that begins at `start`; returns where it ends. Throws as `decodeCpio`. */
export function* decodeArchive(bytes: Uint8Array, start: number): Generator<CpioReadRecord, number> {
  for (let offset = start; ; ) {
    const { record, end } = decodeRecord(bytes, offset);
    if (record.path === CPIO_TRAILER) return end;
    yield record;
    offset = end;
    if (offset >= bytes.length) {
      throw mismatch("E_CPIO", at(offset), "the end", `a record or ${CPIO_TRAILER}`);
    }
  }
}

/** Offset of the next byte that is not zero; archives begin 4-byte aligned. */
function skipZeros(bytes: Uint8Array, start: number): number {
  let offset = start;
  while (offset < bytes.length && bytes[offset] === 0) offset++;
  if (offset < bytes.length && offset % 4 !== 0) {
    throw mismatch("E_CPIO", at(offset), "an archive", "one that begins at a multiple of 4");
  }
  return offset;
}

function decodeRecord(bytes: Uint8Array, offset: number): { record: CpioReadRecord; end: number } {
  if (offset + CPIO_HEADER_SIZE > bytes.length) {
    throw mismatch("E_CPIO", at(offset), `${bytes.length - offset} bytes`, `${CPIO_HEADER_SIZE} of header`);
  }
  const magic = String.fromCharCode(...bytes.subarray(offset, offset + CPIO_MAGIC.length));
  if (magic !== CPIO_MAGIC) throw mismatch("E_CPIO", at(offset), JSON.stringify(magic), CPIO_MAGIC);
  const field = (name: keyof typeof CPIO) => parseHex(bytes, offset + CPIO[name]);
  const nameStart = offset + CPIO_HEADER_SIZE;
  const path = decodeName(bytes, nameStart, field("namesize"), offset + CPIO.namesize);
  const dataStart = align4(nameStart + field("namesize"));
  const dataEnd = dataStart + field("filesize");
  if (dataEnd > bytes.length) {
    const expected = `at most the ${Math.max(0, bytes.length - dataStart)} bytes that follow`;
    throw mismatch("E_CPIO", `${at(offset + CPIO.filesize)}: filesize`, field("filesize"), expected);
  }
  const record: CpioReadRecord = {
    offset,
    path,
    ino: field("ino"),
    mode: field("mode"),
    uid: field("uid"),
    gid: field("gid"),
    nlink: field("nlink"),
    mtime: field("mtime"),
    devmajor: field("devmajor"),
    devminor: field("devminor"),
    rdevmajor: field("rdevmajor"),
    rdevminor: field("rdevminor"),
    data: dataEnd === dataStart ? [] : [bytes.subarray(dataStart, dataEnd)],
  };
  return { record, end: align4(dataEnd) };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeName(bytes: Uint8Array, start: number, size: number, sizeOffset: number): string {
  if (size < 1 || start + size > bytes.length) {
    throw mismatch("E_CPIO", `${at(sizeOffset)}: namesize`, size, `1 to ${bytes.length - start}`);
  }
  const nul = bytes.subarray(start, start + size).indexOf(0);
  if (nul !== size - 1) {
    throw mismatch(
      "E_CPIO",
      at(start),
      nul < 0 ? "a name without NUL" : `a NUL after ${nul} bytes`,
      "one at its end",
    );
  }
  try {
    return utf8.decode(bytes.subarray(start, start + nul));
  } catch {
    throw mismatch("E_CPIO", at(start), "a name that is not UTF-8", "UTF-8");
  }
}

/** Eight hexadecimal digits of either case. */
function parseHex(bytes: Uint8Array, offset: number): number {
  const text = String.fromCharCode(...bytes.subarray(offset, offset + 8));
  if (/^[0-9A-Fa-f]{8}$/.test(text)) return Number.parseInt(text, 16);
  throw mismatch("E_CPIO", at(offset), JSON.stringify(text), "eight hexadecimal digits");
}

function align4(offset: number): number {
  return Math.ceil(offset / 4) * 4;
}
