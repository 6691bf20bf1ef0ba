/**
 * Strips an ELF64 executable to what the kernel and ld.so map. Symbol and debug tables lie outside every segment, and
 * only sections name them, so dropping all sections and the file's tail is the whole job.
 * Source: elf(5); System V ABI, "ELF Header" and "Program Header".
 */
import { CloisterError } from "../format/errors.ts";
import { offsets, viewOf } from "../format/struct.ts";

export const ELF_HEADER_SIZE = 64;
export const PROGRAM_HEADER_SIZE = 56;

/** Elf64_Ehdr, widths in bytes. */
export const ELF_HEADER = offsets(
  "ELF header",
  {
    magic: 4, // 0x7f "ELF"
    class: 1, // 2: 64-bit
    data: 1, // 1: little-endian
    identVersion: 1,
    osAbi: 1,
    abiVersion: 1,
    padding: 7,
    type: 2,
    machine: 2,
    version: 4,
    entry: 8,
    programOffset: 8, // of the program headers, from the file's start
    sectionOffset: 8,
    flags: 4,
    headerSize: 2,
    programSize: 2, // of one program header
    programCount: 2,
    sectionSize: 2, // of one section header
    sectionCount: 2,
    sectionNames: 2, // index of the section that names sections
  },
  ELF_HEADER_SIZE,
);

/** Elf64_Phdr, widths in bytes. */
export const PROGRAM_HEADER = offsets(
  "ELF program header",
  { type: 4, flags: 4, offset: 8, address: 8, physical: 8, fileSize: 8, memorySize: 8, align: 8 },
  PROGRAM_HEADER_SIZE,
);

const ELF_MAGIC = 0x7f454c46;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const TYPE_LOAD = 1;
/** e_machine, elf(5). */
export const MACHINE_X86_64 = 62;

/** e_machine of an ELF64 little-endian file, `undefined` for anything else: a script, a Mach-O, a PE. */
export function elfMachine(file: Uint8Array): number | undefined {
  if (file.length < ELF_HEADER_SIZE) return undefined;
  const view = viewOf(file);
  if (view.getUint32(ELF_HEADER.magic) !== ELF_MAGIC) return undefined;
  if (view.getUint8(ELF_HEADER.class) !== CLASS_64) return undefined;
  if (view.getUint8(ELF_HEADER.data) !== LITTLE_ENDIAN) return undefined;
  return view.getUint16(ELF_HEADER.machine, true);
}

/**
 * A copy of the executable without sections and without what follows its last segment.
 * `name` is the file's, for messages. Throws E_INSTALL when it is no whole ELF64 little-endian file.
 */
export function stripElf(file: Uint8Array, name: string): Uint8Array {
  if (elfMachine(file) === undefined) throw damaged(name, "no ELF64 little-endian header", "one");
  const stripped = file.slice(0, endOfSegments(file, name));
  const view = viewOf(stripped);
  view.setBigUint64(ELF_HEADER.sectionOffset, 0n, true);
  view.setUint16(ELF_HEADER.sectionSize, 0, true);
  view.setUint16(ELF_HEADER.sectionCount, 0, true);
  view.setUint16(ELF_HEADER.sectionNames, 0, true);
  return stripped;
}

/** Bytes up to the end of the last thing that a program header names. */
function endOfSegments(file: Uint8Array, name: string): number {
  const view = viewOf(file);
  const start = Number(view.getBigUint64(ELF_HEADER.programOffset, true));
  const count = view.getUint16(ELF_HEADER.programCount, true);
  const size = view.getUint16(ELF_HEADER.programSize, true);
  if (size !== PROGRAM_HEADER_SIZE) throw damaged(name, `program headers of ${size} bytes`, "56");
  let end = start + count * size;
  if (end > file.length) throw damaged(name, `program headers up to byte ${end}`, `at most ${file.length}`);
  let loaded = 0;
  for (let header = start; header < start + count * size; header += size) {
    const offset = Number(view.getBigUint64(header + PROGRAM_HEADER.offset, true));
    const segmentEnd = offset + Number(view.getBigUint64(header + PROGRAM_HEADER.fileSize, true));
    if (segmentEnd > file.length) {
      throw damaged(name, `a segment up to byte ${segmentEnd}`, `at most ${file.length}`);
    }
    if (view.getUint32(header + PROGRAM_HEADER.type, true) === TYPE_LOAD) loaded++;
    end = Math.max(end, segmentEnd);
  }
  if (loaded === 0) throw damaged(name, "no segment to load", "at least one");
  return end;
}

function damaged(name: string, got: string, expected: string): CloisterError {
  return new CloisterError("E_INSTALL", `${name}: got ${got}, expected ${expected}`);
}
