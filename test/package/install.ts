/** What is published, installed: both packages packed, and put into one empty folder with what the templates need. */
import { execFileSync, type SpawnSyncReturns, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TEMPLATES } from "../../create/options.ts";

export const ROOT = join(import.meta.dirname, "../..");
/** The system's own Node where there is one; else the pinned one has to do. */
export const SYSTEM_NODE = existsSync("/usr/bin/node") ? "/usr/bin/node" : process.execPath;

export interface Packed {
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string; readonly size: number }[];
}

export interface Installation {
  readonly folder: string;
  /** Path of cloister's tarball. */
  readonly tarball: string;
  readonly packed: Packed;
}

export function install(): Installation {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "cloister-package-")));
  const packed = pack(ROOT, folder, []);
  // The first one built both.
  const create = pack(join(ROOT, "create"), folder, ["--ignore-scripts"]);
  const tarballs = { cloister: packed.filename, "create-cloister": create.filename };
  const dependencies = Object.entries(tarballs).map(([name, file]) => [name, `file:${file}`]);
  const manifest = {
    private: true,
    dependencies: { ...templatePackages(), ...Object.fromEntries(dependencies) },
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  execFileSync("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund"], {
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  return { folder, packed, tarball: join(folder, packed.filename) };
}

/** Packed into `folder` as it would be published. */
export function pack(directory: string, folder: string, options: readonly string[]): Packed {
  const words = ["pack", "--json", "--pack-destination", folder, ...options];
  const output = execFileSync("npm", words, {
    cwd: directory,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [packed] = JSON.parse(output) as Packed[];
  if (packed === undefined) throw new Error("npm pack said nothing");
  return packed;
}

/** What the templates' package.json name, but cloister itself. */
function templatePackages(): Record<string, string> {
  const all = Object.keys(TEMPLATES).map((template) => {
    const path = join(ROOT, "create/templates", template, "package.json");
    const { dependencies, devDependencies } = JSON.parse(readFileSync(path, "utf8"));
    const { cloister: _, ...others } = { ...dependencies, ...devDependencies };
    return others as Record<string, string>;
  });
  return Object.assign({}, ...all);
}

/** Run it to its end; standard output and error as text. */
export function run(folder: string, command: string, ...words: string[]): SpawnSyncReturns<string> {
  return spawnSync(command, words, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** A TCP port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
