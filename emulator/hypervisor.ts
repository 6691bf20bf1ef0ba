/**
 * What the Nitro hypervisor does with an image between NE_START_ENCLAVE and the first instruction: find it in enclave
 * memory, check it, take it over, measure it.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { EIF_HEADER_SIZE, SECTION_HEADER_SIZE, SectionType } from "../format/eif.ts";
import { CloisterError } from "../format/errors.ts";
import { type Measurements, Measurer } from "../format/measurement.ts";
import { type ByteReader, bytesReader, checkAsHypervisor, type Eif, readSection } from "../format/reader.ts";
import { decodeSignature, type EifSignature, SIGNATURE_SECTION_MAX } from "../format/signature.ts";
import { MemoryFile } from "./file.ts";
import type { MachineKind } from "./qemu.ts";

const CHUNK = 1 << 20;
/** COMMAND_LINE_SIZE of x86 Linux (2048), less room for what the hypervisor appends. */
const CMDLINE_MAX = 2048 - 256;

/** Files in memory that a machine boots from. */
export interface BootImage {
  readonly cmdline: string;
  /** Descriptor: the kernel for microvm, the whole EIF for nitro-enclave. */
  readonly kernel: number;
  /** Descriptor: all ramdisks, one after the other; empty for nitro-enclave, which finds them in the EIF. */
  readonly initramfs: number;
  /**
   * PCR0 to PCR2, hashed from these files while the machine boots: 80 ms for 40 MB, in slices of 2 ms. Undefined when
   * the image was closed meanwhile.
   */
  measure(): Promise<Measurements | undefined>;
  /** What the image is signed with; whether it is the image's own is not known before the measurement. */
  readonly signature: EifSignature | undefined;
  close(): void;
}

/** A section's data where the hypervisor keeps it. */
interface Part {
  readonly type: SectionType;
  readonly source: ByteReader;
  readonly offset: number;
  readonly size: number;
}

/**
 * Check the image at the start of `memory` and copy it out of there; the memory is not used again. Throws CloisterError
 * (E_EIF_*) with the offset of what is wrong, SystemError ENOMEM.
 */
export async function loadImage(memory: ByteReader, machine: MachineKind): Promise<BootImage> {
  const eif = await checkAsHypervisor(memory, "x86_64", crc32);
  const cmdline = await readCmdline(memory, eif);
  const signature = await readSignature(memory, eif);
  const kernel = new MemoryFile("kernel");
  const initramfs = new MemoryFile("initramfs");
  const close = () => {
    kernel.close();
    initramfs.close();
  };
  try {
    const parts =
      machine === "microvm"
        ? await splitImage(memory, eif, cmdline, kernel, initramfs)
        : await keepImage(memory, eif, kernel);
    return {
      cmdline: cmdline.toString("latin1"),
      kernel: kernel.descriptor,
      initramfs: initramfs.descriptor,
      measure: () => measure(parts),
      signature,
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

async function splitImage(
  memory: ByteReader,
  eif: Eif,
  cmdline: Buffer,
  kernel: MemoryFile,
  initramfs: MemoryFile,
): Promise<Part[]> {
  const parts: Part[] = [];
  for (const section of eif.sections) {
    const { type, size } = section;
    if (type === SectionType.Cmdline) parts.push({ type, size, source: bytesReader(cmdline), offset: 0 });
    if (type !== SectionType.Kernel && type !== SectionType.Ramdisk) continue;
    const file = type === SectionType.Kernel ? kernel : initramfs;
    parts.push({ type, size, source: file, offset: file.size });
    for await (const chunk of readSection(memory, section)) file.append(chunk);
  }
  return parts;
}

async function keepImage(memory: ByteReader, eif: Eif, file: MemoryFile): Promise<Part[]> {
  file.append(await memory.read(0, EIF_HEADER_SIZE));
  for (const section of eif.sections) {
    file.append(await memory.read(section.offset, SECTION_HEADER_SIZE));
    for await (const chunk of readSection(memory, section)) file.append(chunk);
  }
  return eif.sections.map(({ type, size, offset }) => {
    return { type, size, source: file, offset: offset + SECTION_HEADER_SIZE };
  });
}

/** QEMU takes it as a program argument: no NUL, and no byte that UTF-8 would change. */
async function readCmdline(memory: ByteReader, eif: Eif): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for (const section of eif.sections.filter(({ type }) => type === SectionType.Cmdline)) {
    if (section.size > CMDLINE_MAX) {
      const message = `cmdline section: got ${section.size} bytes, expected at most ${CMDLINE_MAX}`;
      throw new CloisterError("E_EIF_CMDLINE", message);
    }
    for await (const chunk of readSection(memory, section)) chunks.push(chunk);
  }
  const cmdline = Buffer.concat(chunks);
  const bad = cmdline.findIndex((byte) => byte < 0x20 || byte > 0x7e);
  if (bad >= 0) {
    const message = `cmdline section, byte ${bad}: got 0x${cmdline[bad]?.toString(16)}, expected printable ASCII`;
    throw new CloisterError("E_EIF_CMDLINE", message);
  }
  return cmdline;
}

async function readSignature(memory: ByteReader, eif: Eif): Promise<EifSignature | undefined> {
  const section = eif.sections.find(({ type }) => type === SectionType.Signature);
  if (section === undefined) return undefined;
  // One byte more than there may be is enough to be refused.
  const size = Math.min(section.size, SIGNATURE_SECTION_MAX + 1);
  return decodeSignature(await memory.read(section.offset + SECTION_HEADER_SIZE, size));
}

async function measure(parts: readonly Part[]): Promise<Measurements | undefined> {
  const measurer = new Measurer(() => createHash("sha384"));
  for (const { type, source, offset, size } of parts) {
    measurer.section(type);
    for (let done = 0; done < size; done += CHUNK) {
      const length = Math.min(CHUNK, size - done);
      const chunk = await source.read(offset + done, length);
      if (chunk.length < length) return undefined;
      measurer.update(chunk);
    }
  }
  return measurer.digest();
}
