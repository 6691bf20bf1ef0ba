/**
 * Enclave Image File: a header, then sections, each with a header of its own. Every integer is big-endian.
 * Source: aws-nitro-enclaves-image-format, README.md ("EIF header", "EIF section header") and `src/defs/mod.rs`.
 * This file writes; `reader.ts` reads.
 */
import type { Arch } from "./abi.ts";
import { type Crc32, crc32, crc32Combine } from "./crc.ts";
import { at, mismatch } from "./errors.ts";
import { concat, offsets, viewOf } from "./struct.ts";

export const EIF_HEADER_SIZE = 548;
export const SECTION_HEADER_SIZE = 12;
export const MAX_SECTIONS = 32;
/** ".eif" */
export const EIF_MAGIC = 0x2e656966;
/** Versions 0 and 1 never left AWS. 3 added the signature, 4 the metadata. */
export const EIF_VERSION_MIN = 2;
export const EIF_VERSION_MAX = 4;
/** Header flags, bit 0: clear for x86_64, set for aarch64. Classic enclaves have no other. */
export const FLAG_AARCH64 = 1;

/** Widths in bytes. The CRC covers all but itself: bytes [0, 544) and everything from 548 on. */
export const HEADER = offsets(
  "EIF header",
  {
    magic: 4,
    version: 2,
    flags: 2,
    defaultMemory: 8, // bytes; ignored at run
    defaultCpus: 8, // ignored at run
    reserved: 2,
    sectionCount: 2,
    sectionOffsets: 8 * MAX_SECTIONS, // of section headers, from the file's start
    sectionSizes: 8 * MAX_SECTIONS, // of section data, without the section header
    unused: 4,
    crc: 4,
  },
  EIF_HEADER_SIZE,
);

export const SECTION = offsets("EIF section header", { type: 2, flags: 2, size: 8 }, SECTION_HEADER_SIZE);

export const SectionType = { Kernel: 1, Cmdline: 2, Ramdisk: 3, Signature: 4, Metadata: 5 } as const;
export type SectionType = (typeof SectionType)[keyof typeof SectionType];

const sectionNames = new Map<number, string>(Object.entries(SectionType).map(([name, type]) => [type, name]));

/** `Kernel`, `Cmdline`, … or undefined for a number that is no section type. */
export function sectionName(type: number): string | undefined {
  return sectionNames.get(type);
}

/** What the layout needs to know of a section: `size` of its data in bytes, `crc` the CRC-32 of its data. */
export interface SectionSummary {
  readonly type: SectionType;
  readonly size: number;
  readonly crc: number;
}

export interface EifOptions {
  readonly arch: Arch;
  /** 2, 3 or 4; 4 unless given. */
  readonly version?: number;
  /** Bytes; 1 GiB unless given, as AWS's builder writes. */
  readonly defaultMemory?: bigint;
  /** 2 unless given, as AWS's builder writes. */
  readonly defaultCpus?: bigint;
}

export interface EifLayout<S extends SectionSummary> {
  /** The 548 bytes at offset 0. */
  readonly header: Uint8Array;
  /** In file order: the 12 bytes of `header` at `offset`, then the section's data. */
  readonly sections: readonly { readonly section: S; readonly offset: number; readonly header: Uint8Array }[];
  readonly totalBytes: number;
  readonly crc: number;
}

/** Size and CRC of a section whose data is at hand, in any number of pieces. */
export function summarize(type: SectionType, data: Iterable<Uint8Array>, crc: Crc32 = crc32): SectionSummary {
  let size = 0;
  let value = 0;
  for (const piece of data) {
    // Not `length`, which V8 14.6 may sum in 32 bits: see cpio.ts.
    size += piece.byteLength;
    value = crc(piece, value);
  }
  return { type, size, crc: value };
}

/**
 * Everything of an EIF but the sections' data, so that a writer can stream them; data whose CRC is known is not read.
 * Sections keep the order given; AWS's builder writes kernel, cmdline, metadata, ramdisks, signature.
 * Throws E_EIF_VERSION, E_EIF_SECTION_COUNT or E_EIF_SECTIONS when the result would not be a valid EIF.
 */
export function layoutEif<S extends SectionSummary>(
  sections: readonly S[],
  options: EifOptions,
): EifLayout<S> {
  const version = options.version ?? EIF_VERSION_MAX;
  checkVersion(version);
  const header = new Uint8Array(EIF_HEADER_SIZE);
  const view = viewOf(header);
  view.setUint32(HEADER.magic, EIF_MAGIC);
  view.setUint16(HEADER.version, version);
  view.setUint16(HEADER.flags, options.arch === "aarch64" ? FLAG_AARCH64 : 0);
  view.setBigUint64(HEADER.defaultMemory, options.defaultMemory ?? 1n << 30n);
  view.setBigUint64(HEADER.defaultCpus, options.defaultCpus ?? 2n);
  view.setUint16(HEADER.sectionCount, sections.length);
  let offset = EIF_HEADER_SIZE;
  const placed = sections.map((section) => {
    const entry = { section, type: section.type, offset, header: encodeSectionHeader(section) };
    offset += SECTION_HEADER_SIZE + section.size;
    return entry;
  });
  checkSections(placed, version);
  placed.forEach((entry, index) => {
    view.setBigUint64(HEADER.sectionOffsets + 8 * index, BigInt(entry.offset));
    view.setBigUint64(HEADER.sectionSizes + 8 * index, BigInt(entry.section.size));
  });
  let crc = crc32(header.subarray(0, HEADER.crc));
  for (const { section, header } of placed) crc = crc32Combine(crc32(header, crc), section.crc, section.size);
  view.setUint32(HEADER.crc, crc);
  return { header, sections: placed, totalBytes: offset, crc };
}

function encodeSectionHeader(section: SectionSummary): Uint8Array {
  const header = new Uint8Array(SECTION_HEADER_SIZE);
  const view = viewOf(header);
  view.setUint16(SECTION.type, section.type);
  view.setBigUint64(SECTION.size, BigInt(section.size));
  return header;
}

export interface EifParts extends EifOptions {
  readonly kernel: Uint8Array;
  /** No NUL and no newline: the kernel would see them. */
  readonly cmdline: Uint8Array;
  /** Mandatory in version 4, absent before it. See metadata.ts. */
  readonly metadata?: Uint8Array;
  /** The first is measured into PCR1, the others into PCR2. */
  readonly ramdisks: readonly Uint8Array[];
  /** See signature.ts. From version 3 on. */
  readonly signature?: Uint8Array;
}

/** A whole EIF in memory, sections in the order of AWS's builder. Throws as `layoutEif` does. */
export function encodeEif(parts: EifParts): Uint8Array {
  const contents: [SectionType, Uint8Array | undefined][] = [
    [SectionType.Kernel, parts.kernel],
    [SectionType.Cmdline, parts.cmdline],
    [SectionType.Metadata, parts.metadata],
    ...parts.ramdisks.map((data): [SectionType, Uint8Array] => [SectionType.Ramdisk, data]),
    [SectionType.Signature, parts.signature],
  ];
  const sections = contents.flatMap(([type, data]) =>
    data === undefined ? [] : [{ ...summarize(type, [data]), data }],
  );
  const layout = layoutEif(sections, parts);
  return concat([layout.header, ...layout.sections.flatMap(({ header, section }) => [header, section.data])]);
}

export function checkVersion(version: number): void {
  if (version < EIF_VERSION_MIN || version > EIF_VERSION_MAX) {
    throw mismatch("E_EIF_VERSION", at(HEADER.version), version, `${EIF_VERSION_MIN} to ${EIF_VERSION_MAX}`);
  }
}

/**
 * Which sections there must be, and in which order: image-format README, "EIF sections". `offset` is the section
 * header's, for the message. Throws E_EIF_SECTION_COUNT or E_EIF_SECTIONS.
 */
export function checkSections(
  sections: readonly { readonly type: SectionType; readonly offset: number }[],
  version: number,
): void {
  checkSectionCount(sections.length);
  const limits: [SectionType, number, number][] = [
    [SectionType.Kernel, 1, 1],
    [SectionType.Cmdline, 1, 1],
    [SectionType.Ramdisk, 1, MAX_SECTIONS],
    [SectionType.Metadata, version >= 4 ? 1 : 0, version >= 4 ? 1 : 0],
    [SectionType.Signature, 0, version >= 3 ? 1 : 0],
  ];
  for (const [type, least, most] of limits) {
    const found = sections.filter((section) => section.type === type);
    if (found.length >= least && found.length <= most) continue;
    const expected = least === most ? `${least}` : `${least} to ${most}`;
    const where = `${at(found[most]?.offset ?? HEADER.sectionCount)}: ${sectionName(type)} sections`;
    throw mismatch("E_EIF_SECTIONS", where, found.length, `${expected} in version ${version}`);
  }
  const first = sections.find(({ type }) => type === SectionType.Kernel || type === SectionType.Ramdisk);
  if (first?.type === SectionType.Ramdisk) {
    throw mismatch("E_EIF_SECTIONS", at(first.offset), "a ramdisk before the kernel", "the kernel first");
  }
}

export function checkSectionCount(count: number): void {
  if (count >= 2 && count <= MAX_SECTIONS) return;
  throw mismatch("E_EIF_SECTION_COUNT", at(HEADER.sectionCount), count, `2 to ${MAX_SECTIONS} sections`);
}
