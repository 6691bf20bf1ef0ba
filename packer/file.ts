/** Files that appear whole under their name or not at all. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/**
 * Write the pieces beside `path`, then move them onto it: a reader sees the old content or the new, and a failure
 * leaves the old. `durable` waits for the disk first, so that a crash of the machine cannot leave an empty file.
 * Rejects with Node's errors (ENOSPC, EACCES, ENOENT, EISDIR, …).
 */
export async function replaceFile(
  path: string,
  pieces: Iterable<Uint8Array>,
  options: { readonly durable: boolean },
): Promise<void> {
  // Random, so that builds at the same time do not share it.
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}`);
  const file = await open(temporary, "wx");
  try {
    await writeAll(file, pieces, options.durable);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function writeAll(file: FileHandle, pieces: Iterable<Uint8Array>, durable: boolean): Promise<void> {
  try {
    for (const piece of pieces) await file.writeFile(piece);
    if (durable) await file.datasync();
  } finally {
    await file.close();
  }
}
