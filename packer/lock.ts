/** Lockfiles, as far as they say what bytes a package was installed from. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import type { Package } from "./package.ts";

/** Subresource Integrity (W3C) of a package by one lockfile, or undefined. */
type Lookup = (found: Package) => string | undefined;

/** Lockfiles by name: how their text is read; `directory` is theirs. */
const READERS: Readonly<Record<string, (text: string, directory: string) => Lookup>> = {
  "package-lock.json": readNpmLock,
  "npm-shrinkwrap.json": readNpmLock,
  // `  express@5.3.0:` or `  '@scope/name@1.0.0':`, then `    resolution: {integrity: sha512-…}`.
  "pnpm-lock.yaml": (text) => (found) =>
    match(text, `^ +'?/?${idOf(found)}'?:\\n +resolution: \\{integrity: ([^,}\\s]+)`),
  // Version 1: `"express@^5.0.0", express@^5.1.0:`, `  version "5.3.0"`, …, `  integrity sha512-…`.
  "yarn.lock": (text) => (found) =>
    match(
      text,
      `^"?${literal(found.name)}@[^\\n]*:\\n  version "${literal(found.version)}"\\n(?:  [^\\n]*\\n)*?  integrity (\\S+)`,
    ),
  // `"express": ["express@5.3.0", "", { … }, "sha512-…"],`
  "bun.lock": (text) => (found) => match(text, `\\["${idOf(found)}",[^\\n]*"(sha\\d+-[^"\\s]+)"\\],?$`),
};

/** The lockfiles above packages; each is read once. */
export class Lockfiles {
  readonly #lookups = new Map<string, Lookup>();

  /** By the nearest lockfile that knows the package. */
  integrityOf(found: Package): string | undefined {
    for (let directory = found.directory; directory !== dirname(directory); ) {
      directory = dirname(directory);
      for (const [name, reader] of Object.entries(READERS)) {
        const integrity = this.#open(directory, name, reader)?.(found);
        if (integrity !== undefined) return integrity;
      }
    }
    return undefined;
  }

  #open(directory: string, name: string, reader: (text: string, directory: string) => Lookup) {
    const path = join(directory, name);
    const known = this.#lookups.get(path);
    if (known !== undefined || !existsSync(path)) return known;
    const lookup = reader(readFileSync(path, "utf8"), directory);
    this.#lookups.set(path, lookup);
    return lookup;
  }
}

/** Versions 2 and 3: `packages` by the path of the folder. */
function readNpmLock(text: string, directory: string): Lookup {
  const packages = npmPackages(text);
  return (found) => {
    const integrity = packages[relative(directory, found.directory)]?.integrity;
    return typeof integrity === "string" ? integrity : undefined;
  };
}

function npmPackages(text: string): Readonly<Record<string, { readonly integrity?: unknown } | undefined>> {
  try {
    return Object((JSON.parse(text) as { readonly packages?: object } | null)?.packages);
  } catch {
    // SyntaxError: npm complains about it, and a digest that is not known is not claimed.
    return {};
  }
}

function idOf({ name, version }: Package): string {
  return literal(`${name}@${version}`);
}

function match(text: string, pattern: string): string | undefined {
  return new RegExp(pattern, "m").exec(text)?.[1];
}

function literal(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
