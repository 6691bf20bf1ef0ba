/** What differs between two EIFs, and in which register it shows. */
import { type Contents, filesOf, type SectionContents } from "./contents.ts";
import { type BundledModule, modulesOf } from "./module.ts";
import type { RamdiskFile } from "./unpack.ts";

export const PCRS = ["PCR0", "PCR1", "PCR2"] as const;
export type Pcr = (typeof PCRS)[number];

/** Absent on the side that does not have it. */
export interface Change<T> {
  readonly path: string;
  readonly a?: T;
  readonly b?: T;
}

export interface Difference {
  readonly isEqual: boolean;
  /** Registers that differ. */
  readonly registers: readonly Pcr[];
  /** Header fields and sections, as text: `Cmdline: … → …`. */
  readonly facts: readonly Change<string>[];
  /** Files of the first ramdisk, then of the others. */
  readonly files: Readonly<Record<"PCR1" | "PCR2", readonly Change<RamdiskFile>[]>>;
  /** Modules of bundles that differ, by `BUNDLE: MODULE`. */
  readonly modules: readonly Change<BundledModule>[];
  /** What the files and texts do not show, in words. */
  readonly notes: readonly string[];
}

/** Compare them, byte for byte and by meaning. */
export function compare(a: Contents, b: Contents): Difference {
  const registers = PCRS.filter((pcr) => a.measurements[pcr] !== b.measurements[pcr]);
  const groups = { PCR1: ramdisks(a, b, "PCR1"), PCR2: ramdisks(a, b, "PCR2") };
  const files = { PCR1: fileChanges(groups.PCR1), PCR2: fileChanges(groups.PCR2) };
  const facts = changes(factsOf(a), factsOf(b), (left, right) => left === right);
  const notes = [...storage("PCR1", groups.PCR1, files.PCR1), ...storage("PCR2", groups.PCR2, files.PCR2)];
  const isEqual = a.digest === b.digest;
  const found = facts.length + files.PCR1.length + files.PCR2.length + notes.length;
  return {
    isEqual,
    registers,
    facts,
    files,
    modules: [...moduleChanges(groups.PCR1), ...moduleChanges(groups.PCR2)],
    notes: !isEqual && found === 0 ? ["the same parts, laid out differently in the file"] : notes,
  };
}

type Sides = readonly [readonly SectionContents[], readonly SectionContents[]];

function ramdisks(a: Contents, b: Contents, register: "PCR1" | "PCR2"): Sides {
  const of = ({ sections }: Contents) =>
    sections.filter((section) => section.ramdisk !== undefined && section.register === register);
  return [of(a), of(b)];
}

/** What of an image is neither a file nor a register, by name. */
function factsOf({ eif, sections }: Contents): ReadonlyMap<string, string> {
  const { version, arch, defaultMemory, defaultCpus } = eif.header;
  const facts = new Map([
    ["EIF version", `${version}`],
    ["Architecture", arch],
    ["Default memory", `${defaultMemory >> 20n} MiB`],
    ["Default CPUs", `${defaultCpus}`],
    ["Ramdisks", `${sections.filter(({ ramdisk }) => ramdisk !== undefined).length}`],
  ]);
  for (const { name, ramdisk, text, size, sha256 } of sections) {
    if (ramdisk === undefined) facts.set(name, text ?? `${size} bytes, SHA-256 ${sha256}`);
  }
  return facts;
}

function fileChanges([a, b]: Sides): Change<RamdiskFile>[] {
  return changes(filesOf(a), filesOf(b), (left, right) => fileKey(left) === fileKey(right));
}

function fileKey({ mode, size, sha256, points }: RamdiskFile): string {
  return JSON.stringify([mode, size, sha256, points]);
}

function changes<T>(
  a: ReadonlyMap<string, T>,
  b: ReadonlyMap<string, T>,
  equal: (left: T, right: T) => boolean,
): Change<T>[] {
  const paths = [...new Set([...a.keys(), ...b.keys()])].sort();
  return paths.flatMap((path): Change<T>[] => {
    const [left, right] = [a.get(path), b.get(path)];
    if (left === undefined) return right === undefined ? [] : [{ path, b: right }];
    if (right === undefined) return [{ path, a: left }];
    return equal(left, right) ? [] : [{ path, a: left, b: right }];
  });
}

/** Why a register may differ although its files are the same. */
function storage(pcr: "PCR1" | "PCR2", [a, b]: Sides, files: readonly Change<RamdiskFile>[]): string[] {
  const kinds = [a, b].map((sections) =>
    sections.map(({ ramdisk }) => ramdisk?.compressions.join("+")).join(", "),
  );
  const reasons = new Set([a, b].flatMap((group) => group.flatMap(({ ramdisk }) => ramdisk?.unlisted ?? [])));
  const isSame =
    JSON.stringify(a.map(({ sha256 }) => sha256)) === JSON.stringify(b.map(({ sha256 }) => sha256));
  if (isSame) return [];
  const notes = [...reasons].map((reason) => `${pcr}: not all is compared file by file: ${reason}`);
  if (kinds[0] !== kinds[1]) return [...notes, `${pcr}: ramdisks are stored as ${kinds[0]} → ${kinds[1]}`];
  if (notes.length > 0 || files.length > 0) return notes;
  return [`${pcr}: the same files are stored differently: order, times, owners or compression level`];
}

/** Modules of the bundles that are on both sides and differ. */
function moduleChanges(sides: Sides): Change<BundledModule>[] {
  const [a, b] = [filesOf(sides[0]), filesOf(sides[1])];
  return fileChanges(sides).flatMap(({ path, a: left, b: right }) => {
    if (left === undefined || right === undefined) return [];
    const [before, after] = [modules(left, a), modules(right, b)];
    return changes(before, after, (x, y) => x.sha256 === y.sha256).map((change) => {
      return { ...change, path: `${path}: ${change.path}` };
    });
  });
}

function modules(bundle: RamdiskFile, files: ReadonlyMap<string, RamdiskFile>) {
  const map = files.get(`${bundle.path}.map`);
  return map === undefined ? new Map<string, BundledModule>() : modulesOf(text(bundle), text(map));
}

function text({ data }: RamdiskFile): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString();
}
