// What a built kernel folder consists of, and where each byte comes from. manifest.json is the record: the versions and
// digests of the sources are written by hand, everything measured from files is written by rebuild.ts.

import { createHash } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A file of this repository. */
export interface FileRecord {
  /** Relative to the manifest's folder. */
  path: string;
  sizeBytes: number;
  sha256: string;
}

/** A Debian binary package that holds what we build from or redistribute. */
export interface PackageRecord {
  package: string;
  version: string;
  /** The source package that the binary package was built from: what a licence calls the source. */
  sourcePackage: string;
  sourceVersion: string;
  /** File name of the .deb, as apt stores it. */
  file: string;
  sha256: string;
}

/** A file of the enclave's root file system. */
export interface BaseFileRecord {
  /** Relative to the root file system, and to base/ beside the manifest. */
  path: string;
  /** Four octal digits. */
  mode: string;
  sizeBytes: number;
  sha256: string;
  package: string;
  /** Where the package keeps the file; differs from `path` where the package has a symbolic link. */
  member: string;
}

export interface Manifest {
  arch: string;
  kernel: {
    /** `uname -r` */
    release: string;
    /** The date in `uname -v`: by convention the source package's. */
    buildTimestamp: string;
    source: PackageRecord & { tarball: { member: string; sha256: string } };
    fragment: FileRecord;
    patches: FileRecord[];
    config: FileRecord;
    image: FileRecord;
  };
  /** Packages whose version decides bits of the result: a rebuild takes exactly these. */
  tools: { package: string; version: string }[];
  base: {
    packages: PackageRecord[];
    files: BaseFileRecord[];
  };
}

export function readManifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8")) as Manifest;
}

export function writeManifest(folder: string, manifest: Manifest): void {
  writeFileSync(join(folder, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
}

export function sha256File(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

export function recordFile(folder: string, path: string): FileRecord {
  const absolute = join(folder, path);
  return { path, sizeBytes: statSync(absolute).size, sha256: sha256File(absolute) };
}

/**
 * The lines of a config fragment that the resulting configuration does not honour. Kconfig drops an option whose
 * dependencies are missing without a word, and a `# … is not set` for one that another option selects.
 */
export function unmetOptions(fragment: string, config: string): string[] {
  const lines = new Set(config.split("\n"));
  return fragment.split("\n").filter((line) => {
    const off = /^# (CONFIG_\w+) is not set$/.exec(line);
    if (off) return [...lines].some((have) => have.startsWith(`${off[1]}=`));
    return line.startsWith("CONFIG_") && !lines.has(line);
  });
}
