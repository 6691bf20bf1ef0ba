/**
 * Files that a module names by `new URL("./x", import.meta.url)`: they go beside the bundle, and the module is given
 * their new place. A script named so is a worker's entry and is bundled itself.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, relative, resolve } from "node:path";
import type { Loader, Plugin } from "esbuild";
import { CloisterError } from "../format/errors.ts";
import type { AppFile } from "./bundle.ts";
import { elfMachine, MACHINE_X86_64 } from "./elf.ts";

const URL_PATTERN = /new\s+URL\(\s*(["'`])(\.{1,2}\/[^"'`$?#\n]*)\1\s*,\s*import\.meta\.url\s*,?\s*\)/g;
const SCRIPT = /\.[cm]?[jt]sx?$/;

/** Collects, over one run of esbuild, what its modules name. */
export class Assets {
  readonly #directory: string;
  /** Path in the enclave, relative to /app → absolute path. */
  readonly #files = new Map<string, string>();
  readonly #workers = new Map<string, string>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Output name without extension → absolute path of the worker's entry module. */
  get workers(): ReadonlyMap<string, string> {
    return this.#workers;
  }

  files(): AppFile[] {
    return [...this.#files].map(([path, file]) => ({ path, data: readFileSync(file), executable: false }));
  }

  /** Absolute paths of what `files` reads. */
  sources(): string[] {
    return [...this.#files.values()];
  }

  /** A module's source with every URL of a file that exists changed to where the file will be. */
  rewrite(source: string, module: string): string {
    return source.replace(URL_PATTERN, (whole, _quote, specifier: string) => {
      const place = this.#place(resolve(dirname(module), decodeURI(specifier)), module);
      return place === undefined ? whole : `new URL(${JSON.stringify(place)}, import.meta.url)`;
    });
  }

  /** Keep a file and say where it will be, relative to every module of the bundle. */
  add(file: string): string {
    const path = `assets/${this.#name(file)}`;
    this.#files.set(path, file);
    return `./${encodeURI(path)}`;
  }

  #place(target: string, module: string): string | undefined {
    const stats = statSync(target, { throwIfNoEntry: false });
    if (stats?.isFile() === true) return SCRIPT.test(target) ? this.#addWorker(target) : this.add(target);
    // A folder of the module itself, as in `new URL("./", import.meta.url)`, is no asset but a way to compute paths.
    if (stats?.isDirectory() !== true || !relative(target, module).startsWith("..")) return undefined;
    for (const entry of readdirSync(target, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) this.add(join(entry.parentPath, entry.name));
    }
    return `./${encodeURI(`assets/${this.#name(target)}/`)}`;
  }

  #addWorker(file: string): string {
    const name = `worker.${this.#name(file).replaceAll("/", ".").slice(0, -extname(file).length)}`;
    this.#workers.set(name, file);
    return `./${encodeURI(name)}.mjs`;
  }

  /** The path from the project, without climbing: the same on every machine. */
  #name(file: string): string {
    return relative(this.#directory, file).replaceAll("../", "_/");
  }
}

/** Rewrites `modules` (absolute paths), and makes an imported addon file an asset. */
export function assetPlugin(assets: Assets, modules: ReadonlySet<string>): Plugin {
  return {
    name: "assets",
    setup({ onLoad }) {
      // Asking for each file costs a message to esbuild: only those are asked for that are known to need it.
      if (modules.size > 0) {
        const filter = new RegExp(`^(?:${[...modules].map(escapePattern).join("|")})$`);
        onLoad({ filter }, async ({ path }) => ({
          contents: assets.rewrite(await readFile(path, "utf8"), path),
          loader: loaderOf(path),
        }));
      }
      onLoad({ filter: /\.node$/ }, async ({ path }) => {
        if (elfMachine(await readFile(path)) !== MACHINE_X86_64) {
          const message = `${path}: got no x86_64 ELF file, expected an addon for linux-x64-glibc`;
          throw new CloisterError("E_ADDON", message);
        }
        // Not a plain call, which esbuild would take for an import.
        const contents = `module.exports = (0, require)(${JSON.stringify(assets.add(path))});`;
        return { contents, loader: "js" };
      });
    },
  };
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

function loaderOf(path: string): Loader {
  if (/\.[cm]?ts$/.test(path)) return "ts";
  return path.endsWith(".tsx") ? "tsx" : path.endsWith(".jsx") ? "jsx" : "js";
}
