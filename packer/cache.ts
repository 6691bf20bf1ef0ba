/**
 * Results of earlier builds by the digest of what they were made from. Losing it costs time and nothing else: an entry
 * that is absent, torn, damaged or unwritable is the same as none.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, stat, utimes } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { replaceFile } from "./file.ts";

/** Six first ramdisks, or thousands of small apps. The entries that were not used for longest go first. */
const SIZE_MAX = 256 * 1024 * 1024;
/** Part of every key: change it with the code that makes the entries. */
const GENERATION = 1;

export class Cache {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** The entry for `key`, any string that names all inputs; undefined if there is none that can be read. */
  async get(key: string): Promise<Uint8Array | undefined> {
    const path = this.#path(key);
    try {
      const entry = await readFile(path);
      const now = new Date();
      await utimes(path, now, now);
      return entry;
    } catch {
      return undefined;
    }
  }

  /** Keep an entry where that is possible: a full or read-only disk must not fail a build that needs none. */
  async put(key: string, pieces: Iterable<Uint8Array>): Promise<void> {
    try {
      await mkdir(this.#directory, { recursive: true });
      await replaceFile(this.#path(key), pieces, { durable: false });
      await this.#shrink();
    } catch {
      return;
    }
  }

  /** Remove what is over the limit, and with it what killed builds left half-written. */
  async #shrink(): Promise<void> {
    const names = await readdir(this.#directory);
    const files = await Promise.all(
      names.map(async (name) => {
        const path = join(this.#directory, name);
        const { size, mtimeMs } = await stat(path);
        return { path, size, mtimeMs };
      }),
    );
    let total = 0;
    for (const { path, size } of files.sort((a, b) => b.mtimeMs - a.mtimeMs)) {
      total += size;
      if (total > SIZE_MAX) await rm(path, { force: true });
    }
  }

  #path(key: string): string {
    return join(this.#directory, createHash("sha256").update(`${GENERATION}\n${key}`).digest("hex"));
  }
}

/** Beside the project's packages, as bundlers have it; for a project without any, the user's cache directory. */
export function defaultCacheDirectory(project: string, env: NodeJS.ProcessEnv = process.env): string {
  const packages = join(project, "node_modules");
  if (existsSync(packages)) return join(packages, ".cache", "cloister");
  return join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "cloister");
}
