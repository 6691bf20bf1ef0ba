/** Packages with native addons: how they are recognised, and which of their files the enclave needs. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { CloisterError } from "../format/errors.ts";
import type { AppFile } from "./bundle.ts";
import { elfMachine, MACHINE_X86_64 } from "./elf.ts";
import {
  dependencyNames,
  findPackage,
  isForTarget,
  isPlatformPackage,
  type Package,
  TARGET,
} from "./package.ts";

/** Folders below which builders leave `.node` files: node-gyp, prebuildify, node-pre-gyp. */
const ADDON_FOLDERS = ["build/Release", "prebuilds", "lib/binding"];
/** A platform package's name, where it is not installed: `@node-rs/bcrypt-linux-x64-gnu`. */
const PLATFORM_NAME = /(?:linux|darwin|win32|windows|android|freebsd)[-_].*(?:x64|x86_64|ia32|arm|aarch64)/;

/** True when the package brings machine code, of its own or in platform packages. */
export function isNative(found: Package): boolean {
  const { directory, manifest } = found;
  return (
    manifest.gypfile === true ||
    isObject(manifest.binary) ||
    isObject(manifest.napi) ||
    platformDependencies(found).length > 0 ||
    existsSync(join(directory, "binding.gyp")) ||
    hasAddon(directory, { recursive: false }) ||
    ADDON_FOLDERS.some((folder) => hasAddon(join(directory, folder), { recursive: true }))
  );
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}

function hasAddon(directory: string, options: { readonly recursive: boolean }): boolean {
  if (!existsSync(directory)) return false;
  return readdirSync(directory, options).some((name) => String(name).endsWith(".node"));
}

/** Optional dependencies of which there is one a platform, installed or not. */
function platformDependencies(found: Package): string[] {
  return dependencyNames(found.manifest.optionalDependencies).filter((name) => {
    const dependency = findPackage(name, found.directory);
    return dependency === undefined ? PLATFORM_NAME.test(name) : isPlatformPackage(dependency);
  });
}

/**
 * The files of these packages without what only compilers, people and other platforms read. Throws E_ADDON when a
 * package has no addon for the enclave's platform.
 */
export function packageFiles(found: Package, path: string): AppFile[] {
  const all = readdirSync(found.directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(found.directory, join(entry.parentPath, entry.name)))
    .filter((file) => !file.split("/").includes("node_modules"));
  const files = all
    .filter(isKept)
    .sort()
    .map((file) => readAppFile(found.directory, file, path));
  const kept = files.filter(
    ({ path, data }) => !path.endsWith(".node") || elfMachine(data) === MACHINE_X86_64,
  );
  const problem = isNative(found) ? addonProblem(found, all, kept) : undefined;
  if (problem === undefined) return kept;
  throw new CloisterError("E_ADDON", `package "${found.name}" ${found.version}: ${problem}`);
}

function isKept(file: string): boolean {
  if (/\.(?:md|markdown|map|ts|mts|cts|o|obj|a|pdb)$/.test(file)) return false;
  if (/(?:^|[-_./])musl(?:[-_./]|$)/.test(file)) return false;
  const platform = /^prebuilds\/([^/]+)\//.exec(file)?.[1];
  return platform === undefined || platform.startsWith(`${TARGET.os}-${TARGET.cpu}`);
}

function readAppFile(directory: string, file: string, path: string): AppFile {
  const absolute = join(directory, file);
  // Of the modes only this bit matters to a program, and the umask of who installed cannot change it.
  const executable = (statSync(absolute).mode & 0o100) !== 0;
  return { path: `${path}/${file}`, data: readFileSync(absolute), executable };
}

/** Why the package cannot work in the enclave, in words that follow its name. */
function addonProblem(found: Package, all: readonly string[], kept: readonly AppFile[]): string | undefined {
  const expected = `expected one for ${TARGET.os}-${TARGET.cpu}-${TARGET.libc}`;
  const addons = all.filter((file) => file.endsWith(".node"));
  if (addons.length > 0) {
    if (kept.some(({ path }) => path.endsWith(".node"))) return undefined;
    return `got ${addons.slice(0, 3).join(", ")} for other platforms, ${expected}`;
  }
  const names = platformDependencies(found);
  const usable = names.filter((name) => {
    const dependency = findPackage(name, found.directory);
    return dependency !== undefined && isForTarget(dependency);
  });
  if (usable.length > 0) return undefined;
  // A package all of whose platforms are foreign (chokidar with fsevents) does without them on Linux.
  const meant = names.filter((name) => /linux/.test(name) && /x64|x86_64/.test(name) && !/musl/.test(name));
  if (meant.length > 0) return `found no ${meant.join(" or ")} installed, ${expected}`;
  return names.length > 0 ? undefined : `found no addon in it, ${expected}: it was never compiled`;
}
