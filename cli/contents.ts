/** An EIF taken apart for `inspect` and `diff`. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { type EifMeasurements, HASH_ALGORITHM, measureEif } from "../format/describe.ts";
import { SectionType, sectionName } from "../format/eif.ts";
import { CloisterError } from "../format/errors.ts";
import { type ByteReader, type Eif, type EifSection, readEif, readSection } from "../format/reader.ts";
import { concat, toHex } from "../format/struct.ts";
import { type RamdiskFile, type Unpacked, unpackRamdisk } from "./unpack.ts";

export interface Contents {
  readonly path: string;
  readonly sizeBytes: number;
  /** SHA-256 of the whole file, hexadecimal. */
  readonly digest: string;
  readonly eif: Eif;
  readonly measurements: EifMeasurements;
  /** In file order. */
  readonly sections: readonly SectionContents[];
}

export interface SectionContents extends EifSection {
  /** `Kernel`, `Ramdisk`, … */
  readonly name: string;
  /** Of its data, hexadecimal. */
  readonly sha256: string;
  /** The register that, besides PCR0, measures it. */
  readonly register?: "PCR1" | "PCR2" | undefined;
  /** Of the cmdline and the metadata, as stored. */
  readonly text?: string;
  readonly ramdisk?: Unpacked;
}

/** More of a text section is cut off: no cmdline and no metadata of a known tool comes near it. Bytes. */
const TEXT_MAX = 64 * 1024;
const CHUNK = 1 << 20;

/** Throws E_EIF_READ, or what is wrong with the file's header and section table. */
export async function readContents(path: string): Promise<Contents> {
  await using file = await open(path).catch((cause: NodeJS.ErrnoException) => {
    throw new CloisterError("E_EIF_READ", `${path}: got ${cause.code}, expected a readable file`, { cause });
  });
  const stat = await file.stat();
  if (!stat.isFile()) throw new CloisterError("E_EIF_READ", `${path}: got no regular file, expected an EIF`);
  const reader: ByteReader = {
    size: stat.size,
    read: async (offset, length) => {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    },
  };
  try {
    return await takeApart(path, reader);
  } catch (error) {
    // The codec knows offsets, not names.
    if (error instanceof CloisterError) error.message = `${path}: ${error.message}`;
    throw error;
  }
}

async function takeApart(path: string, reader: ByteReader): Promise<Contents> {
  const eif = await readEif(reader, { lenient: true });
  const { pcr0, pcr1, pcr2 } = await measureEif(reader, eif, () => createHash("sha384"));
  const sections: SectionContents[] = [];
  for (const section of eif.sections) sections.push(await readContent(reader, section, sections));
  return {
    path,
    sizeBytes: reader.size,
    digest: await digestOf(reader),
    eif,
    measurements: {
      HashAlgorithm: HASH_ALGORITHM,
      PCR0: toHex(pcr0),
      PCR1: toHex(pcr1),
      PCR2: toHex(pcr2),
    },
    sections,
  };
}

async function digestOf({ size, read }: ByteReader): Promise<string> {
  const hash = createHash("sha256");
  for (let offset = 0; offset < size; offset += CHUNK) {
    hash.update(await read(offset, Math.min(CHUNK, size - offset)));
  }
  return hash.digest("hex");
}

async function readContent(
  reader: ByteReader,
  section: EifSection,
  before: readonly SectionContents[],
): Promise<SectionContents> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readSection(reader, section)) chunks.push(chunk);
  const data = concat(chunks);
  const sha256 = createHash("sha256").update(data).digest("hex");
  const common = { ...section, name: sectionName(section.type) ?? "", sha256 };
  switch (section.type) {
    case SectionType.Ramdisk: {
      const isFirst = !before.some(({ type }) => type === SectionType.Ramdisk);
      return { ...common, register: isFirst ? "PCR1" : "PCR2", ramdisk: unpackRamdisk(data) };
    }
    case SectionType.Cmdline:
    case SectionType.Metadata:
      return {
        ...common,
        ...(section.type === SectionType.Cmdline && { register: "PCR1" }),
        text: Buffer.from(data.subarray(0, TEXT_MAX)).toString(),
      };
    case SectionType.Kernel:
      return { ...common, register: "PCR1" };
    case SectionType.Signature:
      return common;
  }
}

/** What the kernel ends up with, by path: the later of two files of one name wins. */
export function filesOf(sections: readonly SectionContents[]): ReadonlyMap<string, RamdiskFile> {
  return new Map(
    sections.flatMap(({ ramdisk }) => ramdisk?.files ?? []).map((file) => [normal(file.path), file]),
  );
}

/** Archives have `app/x`, `./app/x` or `/app/x` for the same file. */
export function normal(path: string): string {
  return path.replace(/^(?:\.?\/+)+/, "") || ".";
}
