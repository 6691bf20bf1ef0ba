import { CloisterError } from "../format/errors.ts";
import { command } from "./command.ts";
import { type Change, compare, type Difference, PCRS } from "./compare.ts";
import { type Contents, readContents } from "./contents.ts";
import { fileJson } from "./inspect.ts";
import type { BundledModule } from "./module.ts";
import { printable } from "./printable.ts";
import { reportError } from "./report.ts";
import { modeText, type RamdiskFile } from "./unpack.ts";

/** As diff(1) and cmp(1): 0 equal, 1 different, 2 trouble. */
const DIFFERENT = 1;
const TROUBLE = 2;

export const diff = command({
  name: "diff",
  operands: "A.eif B.eif",
  options: {
    json: { type: "boolean", description: "One JSON value: measurements, header, files, modules" },
  },
  examples: [
    "cloister diff released.eif app.eif",
    "cloister diff a.eif b.eif --json | jq -r '.Modules[].Path'",
  ],
  async run(io, operands, { json }) {
    const [first, second, extra] = operands;
    if (first === undefined || second === undefined || extra !== undefined) {
      throw new CloisterError("E_USAGE", `cloister diff: found ${operands.length} files, expected two`);
    }
    try {
      const [a, b] = [await readContents(first), await readContents(second)];
      const difference = compare(a, b);
      io.stdout.write(
        json === true ? `${JSON.stringify(toJson(a, b, difference), null, 2)}\n` : text(a, b, difference),
      );
      return difference.isEqual ? 0 : DIFFERENT;
    } catch (error) {
      reportError(error, json === true ? ["diff", "--json"] : ["diff"], io);
      return TROUBLE;
    }
  },
});

function toJson(a: Contents, b: Contents, difference: Difference): object {
  const { isEqual, registers, facts, files, modules, notes } = difference;
  return {
    Equal: isEqual,
    Measurements: Object.fromEntries(
      PCRS.map((pcr) => [
        pcr,
        { Equal: !registers.includes(pcr), A: a.measurements[pcr], B: b.measurements[pcr] },
      ]),
    ),
    Facts: facts.map((change) => sides("Name", change, (value) => value)),
    Files: (["PCR1", "PCR2"] as const).flatMap((register) =>
      files[register].map((change) => ({ Register: register, ...sides("Path", change, fileJson) })),
    ),
    Modules: modules.map((change) =>
      sides("Path", change, ({ size, sha256 }) => ({ Size: size, Sha256: sha256 })),
    ),
    Notes: notes,
  };
}

function sides<T>(name: string, { path, a, b }: Change<T>, show: (value: T) => unknown): object {
  return { [name]: path, ...(a !== undefined && { A: show(a) }), ...(b !== undefined && { B: show(b) }) };
}

function text(a: Contents, b: Contents, difference: Difference): string {
  if (difference.isEqual) return "equal, byte for byte\n";
  const { registers, facts, files, modules, notes } = difference;
  return [
    ...PCRS.flatMap((pcr) =>
      registers.includes(pcr)
        ? [`${pcr}  differs`, `  - ${a.measurements[pcr]}`, `  + ${b.measurements[pcr]}`]
        : [`${pcr}  equal`],
    ),
    ...(registers.length === 0 ? ["only what no register measures differs"] : []),
    ...facts.flatMap(factRows),
    ...part("files of the first ramdisk, in PCR1", files.PCR1, fileRow),
    ...part("files of the app's ramdisks, in PCR2", files.PCR2, fileRow),
    ...part("modules of bundles", modules, moduleRow),
    ...notes.map((note) => `\n${note}`),
    "",
  ].join("\n");
}

function factRows({ path, a, b }: Change<string>): string[] {
  return [
    `\n${path}`,
    ...(a === undefined ? [] : [`  - ${printable(a)}`]),
    ...(b === undefined ? [] : [`  + ${printable(b)}`]),
  ];
}

function part<T>(title: string, changes: readonly Change<T>[], row: (change: Change<T>) => string): string[] {
  return changes.length === 0 ? [] : [`\n${title}`, ...changes.map(row)];
}

/** `+` added, `-` removed, `~` changed: then what of it. */
function fileRow({ path, a, b }: Change<RamdiskFile>): string {
  const name = printable(path);
  if (a === undefined) return `  + ${name}  ${b === undefined ? "" : facet(b)}`;
  if (b === undefined) return `  - ${name}  ${facet(a)}`;
  const details = [
    ...(a.mode === b.mode ? [] : [`${modeText(a.mode)} → ${modeText(b.mode)}`]),
    ...(a.size === b.size ? [] : [`${a.size} → ${b.size} bytes`]),
    ...(a.sha256 === b.sha256 ? [] : [`SHA-256 ${short(a.sha256)} → ${short(b.sha256)}`]),
    ...(a.points === b.points ? [] : [`${printable(a.points ?? "")} → ${printable(b.points ?? "")}`]),
  ];
  return `  ~ ${name}  ${details.join(", ")}`;
}

function facet({ mode, size, sha256 }: RamdiskFile): string {
  return `${modeText(mode)} ${size} bytes${sha256 === undefined ? "" : ` SHA-256 ${short(sha256)}`}`;
}

function short(hash = "none"): string {
  return hash.slice(0, 12);
}

function moduleRow({ path, a, b }: Change<BundledModule>): string {
  const name = printable(path);
  if (a === undefined) return `  + ${name}  ${b?.size} characters`;
  if (b === undefined) return `  - ${name}  ${a.size} characters`;
  return `  ~ ${name}  ${a.size} → ${b.size} characters`;
}
