/** What is in an enclave and why, for people: tables of at most 100 columns. */
import type { ImageSection } from "../packer/image.ts";
import type { Report } from "../packer/index.ts";
import { printable } from "./printable.ts";

const COLUMNS = 100;
/** What is left for the last column beside names and licenses of usual length. */
const WAY_MAX = 36;
/** Rows of a table that is long in large apps; `--json` has all. */
const ROWS_MAX = 20;

/** Packages, the largest modules, assets, what is below the app, sections. */
export function breakdown(report: Report, sections: readonly ImageSection[]): string {
  const { bundleBytes, modules, packages, assets, platform } = report;
  const bundled = packages.filter(({ isCopied }) => !isCopied);
  const copied = packages.filter(({ isCopied }) => isCopied);
  const own = modules.filter((module) => module.package === undefined);
  const ownBytes = own.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return [
    `What is in ${report.name} ${report.version}, and why. Sizes are those before compression.`,
    ...part(`Bundled: ${size(bundleBytes)} of ${modules.length} modules`, [
      ["SIZE", "MODULES", "PACKAGE", "LICENSE", "IMPORTED BY"],
      [size(ownBytes), `${own.length}`, "the app's own"],
      ...bundled.map((found) => [
        size(found.sizeBytes),
        `${found.files}`,
        `${found.name} ${found.version}`,
        found.license ?? "not stated",
        way(found.why),
      ]),
    ]),
    ...part(
      "Largest modules",
      modules.map(({ path, sizeBytes }) => [size(sizeBytes), path]),
      10,
    ),
    ...part(
      "Packages copied whole, for they have native addons or read files beside their code",
      copied.map((found) => [
        size(found.sizeBytes),
        `${found.files} files`,
        `${found.name} ${found.version}`,
        found.license ?? "not stated",
        way(found.why),
      ]),
    ),
    ...part(
      "Assets",
      assets.map(({ path, sizeBytes }) => [size(sizeBytes), path]),
    ),
    ...part(
      "Below the app, in every enclave of this release",
      platform.map(({ name, version, license = "not stated" }) => [`${name} ${version}`, license]),
      platform.length,
    ),
    ...part(
      "Sections of the image, as stored",
      sections.map((section) => [size(section.sizeBytes), section.type]),
    ),
    "",
  ].join("\n");
}

/** All of it, with keys as the other verbs' JSON has them. */
export function reportJson(report: Report): object {
  return capitalized(report) as object;
}

function capitalized(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(capitalized);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]) => {
    return [`${key.slice(0, 1).toUpperCase()}${key.slice(1)}`, capitalized(inner)];
  });
  return Object.fromEntries(entries);
}

/** A heading and aligned rows; nothing without rows. */
function part(title: string, rows: readonly (readonly string[])[], most = ROWS_MAX): string[] {
  if (rows.length === 0) return [];
  const shown = rows.slice(0, most).map((cells) => cells.map(printable));
  const last = (shown[0]?.length ?? 1) - 1;
  const widths = shown[0]?.map((_, column) => {
    return column === last ? 0 : Math.min(40, Math.max(...shown.map((cells) => cells[column]?.length ?? 0)));
  });
  const lines = shown.map((cells) => {
    const text = cells.map((cell, column) => {
      const width = widths?.[column] ?? 0;
      if (column === last) return cell;
      return isSize(cell) ? cell.padStart(width) : cut(cell, width).padEnd(width);
    });
    return `  ${cut(text.join("  ").trimEnd(), COLUMNS - 2)}`;
  });
  const more = rows.length - shown.length;
  return ["", title, ...lines, ...(more > 0 ? [`  and ${more} more: --json lists all`] : [])];
}

function isSize(cell: string): boolean {
  return /^[\d.]+(?: [kM]?B)?$|^SIZE$|^MODULES$/.test(cell);
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`;
}

/** Who imports it; the ends of a long way tell most: the app's module, and the package that wants it. */
function way(why: readonly string[]): string {
  const importers = why.slice(0, -1);
  const text = importers.join(" → ");
  return text.length <= WAY_MAX ? text : `${importers[0]} → … → ${importers.at(-1)}`;
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
