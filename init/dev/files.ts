/** The files of the app, replaced. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Replacement } from "../../format/development.ts";

/**
 * Each file appears whole: the generation that still serves may be reading it. What is removed goes first, for a file may
 * have become a folder, and the reverse. Throws Node's errors (ENOSPC), and some files are replaced then.
 */
export function replaceFiles(directory: string, { files, removed }: Replacement): void {
  // Beside /app, where no file of the app's has its name.
  const temporary = `${directory}.new`;
  for (const path of removed) remove(directory, path);
  for (const { path, data, executable } of files) {
    const target = join(directory, path);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(temporary, data);
    chmodSync(temporary, executable ? 0o755 : 0o644);
    renameSync(temporary, target);
  }
}

/** The file, and the folders that it leaves empty. */
function remove(directory: string, path: string): void {
  rmSync(join(directory, path), { force: true });
  for (let parent = dirname(path); parent !== "."; parent = dirname(parent)) {
    const folder = join(directory, parent);
    if (!existsSync(folder)) continue;
    if (readdirSync(folder).length > 0) return;
    rmdirSync(folder);
  }
}
