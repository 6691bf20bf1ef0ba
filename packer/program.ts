/**
 * Our programs in the enclave. A checkout bundles them from its sources; the published package brings what its release
 * bundled, so that no other esbuild or compiler near it changes what is measured.
 */
import { extname, join } from "node:path";
import { build } from "esbuild";
import { concat } from "../format/struct.ts";
import { type Release, readJson, readVerified } from "./release.ts";

interface Source {
  readonly source: string;
  /** Relative to the root of the enclave's file system. */
  readonly target: string;
  readonly mode: number;
  /** What the kernel needs to start it. */
  readonly head: string;
}

/** Programs that go into a ramdisk together. */
export interface ProgramSet {
  /** Below PROGRAM_DIRECTORY. */
  readonly folder: string;
  readonly sources: readonly Source[];
}

/**
 * Each is one CommonJS file: `/init` has no extension, and Node would parse it twice to find out that it is an ES
 * module.
 */
export const ENCLAVE_PROGRAMS: ProgramSet = {
  folder: "",
  sources: [
    { source: "init/main.ts", target: "init", mode: 0o755, head: "#!/bin/node\n" },
    { source: "init/housekeeping.ts", target: "lib/housekeeping.cjs", mode: 0o644, head: "" },
    { source: "init/preload.ts", target: "lib/preload.cjs", mode: 0o644, head: "" },
  ],
};

/** What images for development have over the others, in a later ramdisk: no other image has any of it. */
export const DEVELOPMENT_PROGRAMS: ProgramSet = {
  folder: "development",
  sources: [
    { source: "init/dev/main.ts", target: "init", mode: 0o755, head: "#!/bin/node\n" },
    { source: "init/dev/generation.ts", target: "lib/generation.cjs", mode: 0o644, head: "" },
  ],
};

/** npm packages whose modules are in these. */
export const PROGRAM_PACKAGES = ["hpke"] as const;

/** Where the published package has them, relative to its directory. */
export const PROGRAM_DIRECTORY = "dist/enclave";
/** Beside them: SHA-256 by target, hexadecimal. */
export const PROGRAM_DIGESTS = "sha256.json";

/** One of our programs as it lies in the ramdisk. */
export interface Program {
  readonly target: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

/** The release's programs: the same bytes from a checkout and from its package. Throws E_INSTALL. */
export async function loadPrograms(release: Release, set = ENCLAVE_PROGRAMS): Promise<Program[]> {
  return extname(import.meta.filename) === ".ts" ? bundlePrograms(release, set) : readPrograms(release, set);
}

/** Bundle the sources; the bytes do not depend on where the checkout is. */
export async function bundlePrograms(release: Release, { sources } = ENCLAVE_PROGRAMS): Promise<Program[]> {
  const { outputFiles } = await build({
    absWorkingDir: release.directory,
    entryPoints: sources.map(({ source, target }) => ({ in: source, out: target })),
    outdir: release.directory,
    bundle: true,
    write: false,
    format: "cjs",
    platform: "node",
    target: "esnext",
    charset: "utf8",
    minifySyntax: true,
    // Comments would name the modules by their paths, which differ with where npm put our dependencies.
    minifyWhitespace: true,
    legalComments: "none",
    logLevel: "silent",
  });
  return sources.map(({ target, mode, head }, index) => {
    const code = outputFiles[index]?.contents ?? new Uint8Array();
    return { target, mode, data: concat([Buffer.from(head), code]) };
  });
}

function readPrograms({ directory }: Release, { folder: subfolder, sources }: ProgramSet): Program[] {
  const folder = join(directory, PROGRAM_DIRECTORY);
  const digests = readJson(join(folder, PROGRAM_DIGESTS)) as Readonly<Record<string, string>>;
  return sources.map(({ target, mode }) => {
    const path = join(subfolder, target);
    return { target, mode, data: readVerified(join(folder, path), digests[path] ?? "") };
  });
}
