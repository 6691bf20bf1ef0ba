/** The files of the app, replaced. */
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Replacement } from "../../format/development.ts";

/** Each file appears whole: the generation that still serves may be reading it. Throws Node's errors (ENOSPC). */
export function replaceFiles(directory: string, { files, removed }: Replacement): void {
  for (const { path, data, executable } of files) {
    const target = join(directory, path);
    const temporary = `${target}.new`;
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(temporary, data);
    chmodSync(temporary, executable ? 0o755 : 0o644);
    renameSync(temporary, target);
  }
  for (const path of removed) rmSync(join(directory, path), { force: true });
}
