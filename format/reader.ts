/**
 * Read an Enclave Image File without holding it in memory: header and section headers first, data on request.
 * Source: image-format README; what each known reader enforces differs, and is named beside each option.
 */
import type { Arch } from "./abi.ts";
import { type Crc32, crc32 } from "./crc.ts";
import {
  checkSectionCount,
  checkSections,
  checkVersion,
  EIF_HEADER_SIZE,
  EIF_MAGIC,
  FLAG_AARCH64,
  HEADER,
  SECTION,
  SECTION_HEADER_SIZE,
  type SectionType,
  sectionName,
} from "./eif.ts";
import { at, mismatch } from "./errors.ts";
import { viewOf } from "./struct.ts";

/** Random access to bytes: a file, enclave memory. `read` returns exactly `length` bytes; both are in bytes. */
export interface ByteReader {
  readonly size: number;
  read(offset: number, length: number): Uint8Array | Promise<Uint8Array>;
}

/** Bytes in memory as a ByteReader. Pieces it returns are views. */
export function bytesReader(bytes: Uint8Array): ByteReader {
  return { size: bytes.byteLength, read: (offset, length) => bytes.subarray(offset, offset + length) };
}

export interface EifHeader {
  readonly version: number;
  /** All 16 bits; `arch` is bit 0. */
  readonly flags: number;
  readonly arch: Arch;
  /** Bytes. */
  readonly defaultMemory: bigint;
  readonly defaultCpus: bigint;
  /** The CRC-32 that the header claims. */
  readonly crc: number;
}

export interface EifSection {
  readonly type: SectionType;
  /** Of the section header, from the start of the file; the data follows after SECTION_HEADER_SIZE bytes. */
  readonly offset: number;
  /** Of the data, in bytes. */
  readonly size: number;
}

export interface Eif {
  readonly header: EifHeader;
  /** In file order. */
  readonly sections: readonly EifSection[];
  /** End of the last section. */
  readonly totalBytes: number;
}

export interface DecodedSection extends EifSection {
  /** A view of the input. */
  readonly data: Uint8Array;
}

export interface DecodedEif extends Eif {
  readonly sections: readonly DecodedSection[];
}

export interface ReadEifOptions {
  /**
   * Accept what AWS's own reader accepts: a size in the header's table that differs from the section's own (sign-eif
   * leaves one behind, image-format #54), gaps between sections, fewer than 12 bytes after the last one.
   */
  readonly lenient?: boolean;
  /** The reader is larger than the image: enclave memory, whose loader knows no file size. */
  readonly trailing?: boolean;
}

interface TableRow {
  readonly offset: bigint;
  readonly size: bigint;
}

/**
 * Header and section table of an EIF; the CRC is not checked (see `eifCrc`). Reads 548 + 12 × sections bytes.
 * Throws E_EIF_MAGIC, E_EIF_TRUNCATED, E_EIF_VERSION, E_EIF_SECTION_COUNT, E_EIF_SECTION_TYPE, E_EIF_SECTION_SIZE,
 * E_EIF_SECTION_OVERLAP or E_EIF_SECTIONS, each with the byte offset.
 */
export async function readEif(reader: ByteReader, options: ReadEifOptions = {}): Promise<Eif> {
  const head = await reader.read(0, Math.min(EIF_HEADER_SIZE, reader.size));
  const { header, table } = decodeHeader(head);
  const sections: EifSection[] = [];
  for (const row of table) {
    const offset = sectionOffset(row, sections.at(-1), reader.size, options);
    const bytes = await readExactly(reader, offset, SECTION_HEADER_SIZE);
    sections.push(decodeSection(bytes, offset, row, reader.size, options));
  }
  return finish(header, sections, reader.size, options);
}

/** A whole EIF in memory, its CRC checked. Throws as `readEif`, and E_EIF_CRC. */
export function decodeEif(bytes: Uint8Array): DecodedEif {
  const { header, table } = decodeHeader(bytes.subarray(0, EIF_HEADER_SIZE));
  const fileSize = bytes.byteLength;
  const sections: DecodedSection[] = [];
  for (const row of table) {
    const offset = sectionOffset(row, sections.at(-1), fileSize, {});
    const start = offset + SECTION_HEADER_SIZE;
    const section = decodeSection(bytes.subarray(offset, start), offset, row, fileSize, {});
    sections.push({ ...section, data: bytes.subarray(start, start + section.size) });
  }
  const eif = finish(header, sections, fileSize, {});
  checkCrc(crc32(bytes.subarray(EIF_HEADER_SIZE), crc32(bytes.subarray(0, HEADER.crc))), header.crc);
  return { ...eif, sections };
}

const CHUNK = 1 << 20;

/** A section's data in views of at most 1 MiB. Throws E_EIF_TRUNCATED when the file shrinks meanwhile. */
export function readSection(reader: ByteReader, section: EifSection): AsyncGenerator<Uint8Array> {
  return readRange(reader, section.offset + SECTION_HEADER_SIZE, section.size);
}

async function* readRange(reader: ByteReader, start: number, length: number): AsyncGenerator<Uint8Array> {
  for (let offset = start; offset < start + length; offset += CHUNK) {
    yield await readExactly(reader, offset, Math.min(CHUNK, start + length - offset));
  }
}

/** The CRC-32 that the header should hold, computed from the file; compare with `eif.header.crc`. */
export async function eifCrc(reader: ByteReader, eif: Eif, crc: Crc32 = crc32): Promise<number> {
  let value = crc(await readExactly(reader, 0, HEADER.crc));
  for await (const chunk of readRange(reader, EIF_HEADER_SIZE, eif.totalBytes - EIF_HEADER_SIZE)) {
    value = crc(chunk, value);
  }
  return value;
}

/**
 * What the Nitro hypervisor checks before it starts an image of unknown length in enclave memory, by the format's
 * specification: all of `readEif`, CRC, and header flags that name exactly the machine's architecture.
 * Throws E_EIF_CRC, E_EIF_ARCH, or as `readEif`.
 */
export async function checkAsHypervisor(reader: ByteReader, arch: Arch, crc: Crc32 = crc32): Promise<Eif> {
  const eif = await readEif(reader, { trailing: true });
  checkCrc(await eifCrc(reader, eif, crc), eif.header.crc);
  const flags = arch === "aarch64" ? FLAG_AARCH64 : 0;
  if (eif.header.flags !== flags) {
    const got = `flags 0x${eif.header.flags.toString(16)} (${eif.header.arch})`;
    throw mismatch("E_EIF_ARCH", at(HEADER.flags), got, `0x${flags.toString(16)} (${arch})`);
  }
  return eif;
}

function decodeHeader(bytes: Uint8Array): { header: EifHeader; table: TableRow[] } {
  const view = viewOf(bytes);
  if (bytes.length < 4 || view.getUint32(HEADER.magic) !== EIF_MAGIC) {
    const found = [...bytes.subarray(0, 4)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    throw mismatch("E_EIF_MAGIC", at(HEADER.magic), found || "no bytes", "2e 65 69 66 (.eif)");
  }
  if (bytes.length < EIF_HEADER_SIZE) {
    throw mismatch("E_EIF_TRUNCATED", at(bytes.length), "the end", `${EIF_HEADER_SIZE} bytes of header`);
  }
  const version = view.getUint16(HEADER.version);
  const flags = view.getUint16(HEADER.flags);
  const count = view.getUint16(HEADER.sectionCount);
  checkVersion(version);
  checkSectionCount(count);
  const header: EifHeader = {
    version,
    flags,
    arch: flags & FLAG_AARCH64 ? "aarch64" : "x86_64",
    defaultMemory: view.getBigUint64(HEADER.defaultMemory),
    defaultCpus: view.getBigUint64(HEADER.defaultCpus),
    crc: view.getUint32(HEADER.crc),
  };
  const table = Array.from({ length: count }, (_, index) => ({
    offset: view.getBigUint64(HEADER.sectionOffsets + 8 * index),
    size: view.getBigUint64(HEADER.sectionSizes + 8 * index),
  }));
  return { header, table };
}

/** The row's offset as a number, once it is known to lie behind the section before it and inside the file. */
function sectionOffset(
  row: TableRow,
  previous: EifSection | undefined,
  fileSize: number,
  options: ReadEifOptions,
): number {
  const end = endOf(previous);
  if (row.offset < end) {
    throw mismatch(
      "E_EIF_SECTION_OVERLAP",
      at(Number(row.offset)),
      "a section header",
      `none before ${at(end)}`,
    );
  }
  if (row.offset + BigInt(SECTION_HEADER_SIZE) > fileSize) {
    const expected = `a section header at ${row.offset}`;
    throw mismatch("E_EIF_TRUNCATED", at(fileSize), "the end", expected);
  }
  if (row.offset > end && !options.lenient) {
    throw mismatch("E_EIF_SECTION_SIZE", at(end), "a gap", `the section header that lies at ${row.offset}`);
  }
  return Number(row.offset);
}

function decodeSection(
  bytes: Uint8Array,
  offset: number,
  row: TableRow,
  fileSize: number,
  options: ReadEifOptions,
): EifSection {
  const view = viewOf(bytes);
  const type = view.getUint16(SECTION.type);
  const size = view.getBigUint64(SECTION.size);
  if (sectionName(type) === undefined) {
    throw mismatch("E_EIF_SECTION_TYPE", at(offset + SECTION.type), type, "a section type, 1 to 5");
  }
  const end = BigInt(offset + SECTION_HEADER_SIZE) + size;
  if (end > fileSize) {
    throw mismatch("E_EIF_TRUNCATED", at(fileSize), "the end", `${sectionName(type)} section up to ${end}`);
  }
  if (size !== row.size && !options.lenient) {
    const expected = `${row.size}, the header's section_sizes`;
    throw mismatch("E_EIF_SECTION_SIZE", `${at(offset + SECTION.size)}: section size`, size, expected);
  }
  return { type: type as SectionType, offset, size: Number(size) };
}

function finish(header: EifHeader, sections: EifSection[], fileSize: number, options: ReadEifOptions): Eif {
  checkSections(sections, header.version);
  const totalBytes = endOf(sections.at(-1));
  const extra = fileSize - totalBytes;
  const tolerated = options.trailing ? extra : options.lenient ? SECTION_HEADER_SIZE - 1 : 0;
  if (extra > tolerated) {
    throw mismatch("E_EIF_SECTION_SIZE", at(totalBytes), `${extra} more bytes`, "the end of the file");
  }
  return { header, sections, totalBytes };
}

function endOf(section: EifSection | undefined): number {
  return section === undefined ? EIF_HEADER_SIZE : section.offset + SECTION_HEADER_SIZE + section.size;
}

function checkCrc(computed: number, claimed: number): void {
  if (computed === claimed) return;
  const [got, expected] = [claimed, computed].map((crc) => crc.toString(16).padStart(8, "0")) as [
    string,
    string,
  ];
  throw mismatch("E_EIF_CRC", `${at(HEADER.crc)}: CRC-32`, got, `${expected} for these bytes`);
}

async function readExactly(reader: ByteReader, offset: number, length: number): Promise<Uint8Array> {
  const bytes = await reader.read(offset, length);
  if (bytes.length === length) return bytes;
  throw mismatch("E_EIF_TRUNCATED", at(offset), `${bytes.length} bytes`, `${length} bytes`);
}
