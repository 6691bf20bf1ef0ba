/**
 * The modules of a bundle, told apart by its source map. Source: ECMA-426. Map and bundle come from an image: a map
 * that is none gives no modules.
 */
import { createHash } from "node:crypto";

export interface BundledModule {
  /** What of the bundle is its, in UTF-16 code units. */
  readonly size: number;
  /** Of that, hexadecimal. */
  readonly sha256: string;
}

interface SourceMap {
  readonly version: number;
  readonly sources: readonly (string | null)[];
  readonly mappings: string;
}

/** Modules by their path relative to the project, in the order of the map. */
export function modulesOf(bundle: string, mapText: string): ReadonlyMap<string, BundledModule> {
  const map = parseMap(mapText);
  if (map === undefined) return new Map();
  const lines = bundle.split("\n");
  const parts = map.sources.map(() => ({ size: 0, hash: createHash("sha256") }));
  for (const { line, start, end, source } of spans(map.mappings)) {
    const part = parts[source];
    const text = lines[line]?.slice(start, end);
    if (part === undefined || text === undefined) continue;
    part.size += text.length;
    part.hash.update(text);
  }
  return new Map(
    parts.map(({ size, hash }, index) => [map.sources[index] ?? "", { size, sha256: hash.digest("hex") }]),
  );
}

function parseMap(text: string): SourceMap | undefined {
  let map: Partial<SourceMap> | null;
  try {
    map = JSON.parse(text);
  } catch {
    return undefined;
  }
  const valid =
    map?.version === 3 &&
    typeof map.mappings === "string" &&
    Array.isArray(map.sources) &&
    map.sources.every((source) => source === null || typeof source === "string");
  return valid ? (map as SourceMap) : undefined;
}

interface Span {
  readonly line: number;
  /** Columns; the last span of a line has no end. */
  readonly start: number;
  readonly end: number | undefined;
  readonly source: number;
}

/** Pieces of the bundle that a segment maps; each reaches up to the next segment of its line. */
function* spans(mappings: string): Generator<Span> {
  let source = 0;
  for (const [line, group] of mappings.split(";").entries()) {
    let column = 0;
    let open: Omit<Span, "end"> | undefined;
    for (const segment of group === "" ? [] : group.split(",")) {
      const [columns = 0, sources] = decodeVlq(segment);
      column += columns;
      if (open !== undefined) yield { ...open, end: column };
      source += sources ?? 0;
      open = sources === undefined ? undefined : { line, start: column, source };
    }
    if (open !== undefined) yield { ...open, end: undefined };
  }
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Base64 VLQ: five bits a digit, the sixth says that more follow; the lowest bit of a number is its sign. */
function decodeVlq(segment: string): number[] {
  const numbers: number[] = [];
  let value = 0;
  let scale = 1;
  for (const character of segment) {
    const digit = DIGITS.indexOf(character);
    if (digit < 0) return numbers;
    value += (digit & 31) * scale;
    scale *= 32;
    if (digit & 32) continue;
    numbers.push(value % 2 === 1 ? -(value - 1) / 2 : value / 2);
    value = 0;
    scale = 1;
  }
  return numbers;
}
