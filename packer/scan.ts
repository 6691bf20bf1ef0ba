/**
 * What esbuild does not see in the modules it bundled: assets named by URL, packages that read files beside their
 * code, decorators that want their types at run time.
 */
import { readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import type { Metafile } from "esbuild";
import { CloisterError } from "../format/errors.ts";
import { type Package, packageOfFile } from "./package.ts";
import { decoratorMetadataSetter } from "./tsconfig.ts";

export interface Findings {
  /** Absolute paths of modules with `new URL("./x", import.meta.url)`. */
  readonly urlModules: readonly string[];
  readonly selfReaders: readonly Package[];
}

const SCRIPT = /\.[cm]?[jt]sx?$/;
const TYPESCRIPT = /\.[cm]?tsx?$/;
const DECORATOR = /^\s*@[A-Za-z_$][\w$.]*(?:\s*\(|\s*$)/;

/** Read every module of a bundle once. Throws E_DECORATOR_METADATA. */
export function scanModules(directory: string, metafile: Metafile): Findings {
  const urlModules: string[] = [];
  const selfReaders = new Map<string, Package>();
  const settings = new Map<string, string | undefined>();
  for (const path of bundledModules(directory, metafile)) {
    const source = readFileSync(path, "utf8");
    if (source.includes("import.meta.url") && source.includes("new URL(")) urlModules.push(path);
    const owner = packageOfFile(path);
    if (owner === undefined) {
      if (TYPESCRIPT.test(path)) refuseDecoratorMetadata(directory, path, source, settings);
    } else if (/\b__(?:dirname|filename)\b/.test(source)) {
      selfReaders.set(owner.directory, owner);
    }
  }
  return { urlModules, selfReaders: [...selfReaders.values()] };
}

/** Absolute paths of the modules of which some byte is in the output. */
function bundledModules(directory: string, metafile: Metafile): string[] {
  const used = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0),
  );
  const paths = new Set(used.map(([path]) => resolve(directory, path)));
  return [...paths].filter((path) => SCRIPT.test(path)).sort();
}

/** esbuild ignores the option silently; frameworks that inject by type then fail far from the cause. */
function refuseDecoratorMetadata(
  directory: string,
  path: string,
  source: string,
  settings: Map<string, string | undefined>,
): void {
  const folder = dirname(path);
  if (!settings.has(folder)) settings.set(folder, decoratorMetadataSetter(folder));
  const setter = settings.get(folder);
  if (setter === undefined) return;
  const line = source.split("\n").findIndex((text) => DECORATOR.test(text));
  if (line < 0) return;
  throw new CloisterError(
    "E_DECORATOR_METADATA",
    `${relative(directory, setter)}: got emitDecoratorMetadata, expected none, ` +
      `because ${relative(directory, path)}:${line + 1} has a decorator`,
  );
}
