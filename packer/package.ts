/** Installed npm packages: where they lie, what their package.json says, which machine they are for. */
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";

/** What the enclave is, in npm's words (package.json's `os`, `cpu` and `libc`). */
export const TARGET = { os: "linux", cpu: "x64", libc: "glibc" } as const;

/** The fields of a package.json that are read here; everything else passes unseen. */
interface Manifest {
  readonly name?: unknown;
  readonly version?: unknown;
  readonly os?: unknown;
  readonly cpu?: unknown;
  readonly libc?: unknown;
  readonly gypfile?: unknown;
  readonly binary?: unknown;
  readonly napi?: unknown;
  readonly dependencies?: unknown;
  readonly optionalDependencies?: unknown;
  readonly peerDependencies?: unknown;
  readonly license?: unknown;
  readonly licenses?: unknown;
}

export interface Package {
  readonly name: string;
  readonly version: string;
  /** Absolute, symbolic links resolved (pnpm and workspaces link packages). */
  readonly directory: string;
  readonly manifest: Manifest;
}

/** The package that Node finds for `name` from a module in `directory`, or undefined. */
export function findPackage(name: string, directory: string): Package | undefined {
  for (let above = directory; ; above = dirname(above)) {
    const candidate = join(above, "node_modules", name);
    if (existsSync(join(candidate, "package.json"))) return readPackage(realpathSync(candidate));
    if (above === dirname(above)) return undefined;
  }
}

/** The installed package that a file below a node_modules folder belongs to. */
export function packageOfFile(file: string): Package | undefined {
  const match = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file);
  const directory = match?.[1];
  return directory !== undefined && existsSync(join(directory, "package.json"))
    ? readPackage(directory)
    : undefined;
}

function readPackage(directory: string): Package {
  const manifest = parseManifest(join(directory, "package.json"));
  return {
    name: typeof manifest.name === "string" ? manifest.name : directory,
    version: typeof manifest.version === "string" ? manifest.version : "0.0.0",
    directory,
    manifest,
  };
}

function parseManifest(path: string): Manifest {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    return typeof value === "object" && value !== null ? value : {};
  } catch (error) {
    // A package.json that is no JSON says nothing; esbuild and Node complain about it where it matters.
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

/** Names of the packages in one dependency table. */
export function dependencyNames(table: unknown): string[] {
  return typeof table === "object" && table !== null ? Object.keys(table) : [];
}

/** False for a package that its own package.json reserves for other machines than the enclave. */
export function isForTarget({ manifest }: Package): boolean {
  return (
    admits(manifest.os, TARGET.os) && admits(manifest.cpu, TARGET.cpu) && admits(manifest.libc, TARGET.libc)
  );
}

/** True for a package that its package.json ties to certain machines. */
export function isPlatformPackage({ manifest }: Package): boolean {
  return manifest.os !== undefined || manifest.cpu !== undefined || manifest.libc !== undefined;
}

/** npm's rule for os, cpu and libc: a list of names, of which those with "!" exclude. */
function admits(field: unknown, name: string): boolean {
  if (field === undefined) return true;
  const list = (Array.isArray(field) ? field : [field]).map(String);
  if (list.includes(`!${name}`)) return false;
  const allowed = list.filter((item) => !item.startsWith("!"));
  return allowed.length === 0 || allowed.includes(name) || allowed.includes("any");
}
