/** The EIF: its sections in file order, their measurement, the file. */
import { crc32 } from "node:zlib";
import { HASH_ALGORITHM } from "../format/describe.ts";
import {
  type EifLayout,
  layoutEif,
  type SectionSummary,
  SectionType,
  sectionName,
  summarize,
} from "../format/eif.ts";
import { CloisterError } from "../format/errors.ts";
import { toHex } from "../format/struct.ts";
import type { Base } from "./base.ts";
import { replaceFile } from "./file.ts";
import type { Ramdisk } from "./ramdisk.ts";

/** Registers in lower-case hexadecimal. */
export interface ImageMeasurements {
  readonly HashAlgorithm: string;
  readonly PCR0: string;
  readonly PCR1: string;
  readonly PCR2: string;
}

export interface ImageSection {
  /** Kernel, Cmdline, Metadata or Ramdisk. */
  readonly type: string;
  /** Of the section header, bytes from the file's start. */
  readonly offset: number;
  /** Of the section's data, bytes. */
  readonly sizeBytes: number;
}

interface Part extends SectionSummary {
  readonly data: Uint8Array;
}

/** What the header says the image wants to run in: `cloister run` takes it, nitro-cli ignores it. Not measured. */
export interface Defaults {
  readonly memoryMiB: number;
  readonly cpus: number;
}

/** An EIF of version 4 for x86_64, in the section order of AWS's builder. */
export class Image {
  readonly #base: Base;
  readonly #apps: readonly Ramdisk[];
  readonly #layout: EifLayout<Part>;

  /** The launcher takes the header's memory and CPUs where it is not told others; the hypervisor ignores them. */
  constructor(
    base: Base,
    metadata: Uint8Array,
    apps: readonly Ramdisk[],
    defaults: { readonly memoryMiB: number; readonly cpus: number },
  ) {
    this.#base = base;
    this.#apps = apps;
    const parts = [
      part(SectionType.Kernel, base.kernel),
      part(SectionType.Cmdline, base.cmdline),
      part(SectionType.Metadata, metadata),
      ...[base.ramdisk, ...apps].map(({ data, crc }) => ({
        type: SectionType.Ramdisk,
        size: data.length,
        crc,
        data,
      })),
    ];
    this.#layout = layoutEif(parts, {
      arch: "x86_64",
      defaultMemory: BigInt(defaults.memoryMiB) << 20n,
      defaultCpus: BigInt(defaults.cpus),
    });
  }

  get sizeBytes(): number {
    return this.#layout.totalBytes;
  }

  get sections(): ImageSection[] {
    return this.#layout.sections.map(({ section, offset }) => ({
      type: sectionName(section.type) ?? "",
      offset,
      sizeBytes: section.size,
    }));
  }

  /** Once: the base's measurement goes on with the app's ramdisks. */
  measure(): ImageMeasurements {
    const { measurer } = this.#base;
    for (const { data } of this.#apps) {
      measurer.section(SectionType.Ramdisk);
      measurer.update(data);
    }
    const { pcr0, pcr1, pcr2 } = measurer.digest();
    return { HashAlgorithm: HASH_ALGORITHM, PCR0: toHex(pcr0), PCR1: toHex(pcr1), PCR2: toHex(pcr2) };
  }

  /** Throws E_WRITE, with nothing of the image left anywhere. */
  async write(path: string): Promise<void> {
    const { header, sections } = this.#layout;
    const pieces = [header, ...sections.flatMap(({ header, section }) => [header, section.data])];
    try {
      await replaceFile(path, pieces, { durable: true });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw new CloisterError("E_WRITE", `${path}: ${explanations.get(code) ?? message}`, { cause: error });
    }
  }
}

const explanations: ReadonlyMap<string | undefined, string> = new Map([
  ["ENOSPC", "got a full disk, expected room for the image"],
  ["EDQUOT", "got an exceeded quota, expected room for the image"],
  ["ENOENT", "found no such directory"],
  ["ENOTDIR", "found a file where a directory should be"],
  ["EACCES", "got permission denied, expected a writable directory"],
  ["EROFS", "got a read-only file system, expected a writable one"],
  ["EISDIR", "found a directory, expected a file or nothing"],
]);

function part(type: SectionType, data: Uint8Array): Part {
  return { ...summarize(type, [data], crc32), data };
}
