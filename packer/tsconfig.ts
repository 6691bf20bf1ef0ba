/** The one compiler option that changes what a program does and that esbuild does not know. */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";

/** A chain of `extends` longer than this is a circle. */
const EXTENDS_MAX = 32;

/** The tsconfig.json that sets `emitDecoratorMetadata` for the sources in `directory`, or undefined. */
export function decoratorMetadataSetter(directory: string): string | undefined {
  for (let above = directory; ; above = dirname(above)) {
    const path = join(above, "tsconfig.json");
    // The nearest one counts alone, for esbuild as for tsc.
    if (existsSync(path)) return findSetter(path, EXTENDS_MAX).setter;
    if (above === dirname(above)) return undefined;
  }
}

/** `setter` is the file that turns the option on; `isSet` says whether the file or one below it decides at all. */
function findSetter(path: string, depth: number): { readonly isSet: boolean; readonly setter?: string } {
  const config = parseJsonc(readFileSync(path, "utf8"));
  const own = config?.compilerOptions?.emitDecoratorMetadata;
  if (typeof own === "boolean") return own ? { isSet: true, setter: path } : { isSet: true };
  const parents = [config?.extends ?? []].flat().filter((parent) => typeof parent === "string");
  // Of several, the last one wins.
  for (const parent of parents.reverse()) {
    const parentPath = resolveExtends(parent, path);
    const found = parentPath === undefined || depth === 0 ? undefined : findSetter(parentPath, depth - 1);
    if (found?.isSet === true) return found;
  }
  return { isSet: false };
}

/** esbuild warns about an `extends` that leads nowhere; here it is as good as absent. */
function resolveExtends(specifier: string, from: string): string | undefined {
  if (/^(?:\.|\/)/.test(specifier)) {
    const path = resolve(dirname(from), specifier);
    return [path, `${path}.json`].find((candidate) => existsSync(candidate) && candidate.endsWith(".json"));
  }
  const require = createRequire(from);
  for (const candidate of [specifier, `${specifier}.json`, `${specifier}/tsconfig.json`]) {
    try {
      return require.resolve(candidate);
    } catch {
      // The next spelling may be the one.
    }
  }
  return undefined;
}

interface Tsconfig {
  readonly extends?: unknown;
  readonly compilerOptions?: { readonly emitDecoratorMetadata?: unknown };
}

/** JSON with comments and trailing commas, as TypeScript reads it; undefined for what esbuild will complain about. */
function parseJsonc(text: string): Tsconfig | undefined {
  // A string, or a comment, or a comma before a closing bracket: the first is kept, the others go.
  const plain = text
    .replace(/^\ufeff/, "")
    .replace(/("(?:[^"\\]|\\.)*")|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, "$1")
    .replace(/("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])/g, "$1");
  try {
    return JSON.parse(plain) ?? undefined;
  } catch {
    return undefined;
  }
}
