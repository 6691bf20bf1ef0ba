// Rebuilds the kernel and the base of an architecture from Debian packages, bit for bit.
//
//   node kernel/rebuild.ts [--arch x86_64] [--dir DIR] [--debs DIR]            build, write the results and the manifest
//   node kernel/rebuild.ts --check [--arch x86_64] [--dir DIR] [--debs DIR]    build, compare, exit 1 on a difference
//
// --dir   work in this new folder and leave it; default: a temporary one, removed at the end
// --debs  take the .deb files from there instead of asking apt (for versions that apt's lists no longer name)
//
// Needs Debian 12 and, to install a tool that is missing, root. All that it fetches is checked against the manifest.

import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { buildKernel, collectBase, installTools } from "./build.ts";
import { type Manifest, readManifest, recordFile, sha256File, writeManifest } from "./manifest.ts";

/** The paths, relative to the manifest's folder, of all that a rebuild makes. */
function resultPaths(manifest: Manifest): string[] {
  const { config, image } = manifest.kernel;
  return [config.path, image.path, ...manifest.base.files.map((file) => join("base", file.path))];
}

/** The manifest with every field that is measured from a file measured anew. */
function measured(manifest: Manifest, archDir: string, release: string): Manifest {
  const { kernel, base } = manifest;
  return {
    ...manifest,
    kernel: {
      ...kernel,
      release,
      fragment: recordFile(archDir, kernel.fragment.path),
      patches: kernel.patches.map((patch) => recordFile(archDir, patch.path)),
      config: recordFile(archDir, kernel.config.path),
      image: recordFile(archDir, kernel.image.path),
    },
    base: {
      ...base,
      files: base.files.map((file) => ({ ...file, ...recordFile(join(archDir, "base"), file.path) })),
    },
  };
}

/** One line for each result that is not, byte for byte and mode for mode, the committed one. */
function differences(manifest: Manifest, archDir: string, resultDir: string): string[] {
  const modes = new Map(
    manifest.base.files.map((file) => [join("base", file.path), Number.parseInt(file.mode, 8)]),
  );
  return resultPaths(manifest).flatMap((path) => {
    const committed = join(archDir, path);
    const rebuilt = join(resultDir, path);
    if (!existsSync(committed)) return [`${path}: not committed`];
    const mode = modes.get(path);
    if (mode !== undefined && (statSync(rebuilt).mode & 0o7777) !== mode) return [`${path}: mode differs`];
    if (readFileSync(committed).equals(readFileSync(rebuilt))) return [];
    return [`${path}: committed sha256 ${sha256File(committed)}, rebuilt ${sha256File(rebuilt)}`];
  });
}

function main(): number {
  const { values } = parseArgs({
    options: {
      arch: { type: "string", default: "x86_64" },
      check: { type: "boolean", default: false },
      dir: { type: "string" },
      debs: { type: "string" },
    },
  });
  const archDir = join(import.meta.dirname, values.arch);
  const manifest = readManifest(archDir);
  // A folder with old results in it could pass for a rebuild.
  if (values.dir) mkdirSync(values.dir);
  const work = values.dir ? resolve(values.dir) : mkdtempSync(join(tmpdir(), "cloister-kernel-"));
  const resultDir = join(work, "result");
  const debs = values.debs && resolve(values.debs);
  try {
    process.umask(0o022);
    installTools(manifest);
    collectBase(manifest, work, debs);
    const release = buildKernel(manifest, archDir, work, debs);
    if (!values.check) {
      for (const path of resultPaths(manifest)) {
        mkdirSync(dirname(join(archDir, path)), { recursive: true });
        copyFileSync(join(resultDir, path), join(archDir, path));
      }
      writeManifest(archDir, measured(manifest, archDir, release));
      return 0;
    }
    const found = differences(manifest, archDir, resultDir);
    // A manifest that no longer describes its own folder is a difference too: an edited patch, say.
    if (JSON.stringify(measured(manifest, archDir, release)) !== JSON.stringify(manifest)) {
      found.push("manifest.json: does not describe the committed files");
    }
    for (const line of found) console.error(line);
    if (found.length === 0) console.error(`${resultPaths(manifest).length} files rebuilt, all identical`);
    return found.length === 0 ? 0 : 1;
  } finally {
    if (!values.dir) rmSync(work, { recursive: true, force: true });
  }
}

process.exitCode = main();
