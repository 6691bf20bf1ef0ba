/** Files that a verb writes beside its image. */
import { CloisterError } from "../format/errors.ts";
import { replaceFile } from "../packer/file.ts";

/** All of it or nothing. Throws E_WRITE. */
export async function writeOutput(path: string, text: string): Promise<void> {
  try {
    await replaceFile(path, [Buffer.from(text)], { durable: false });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const fix = "Make room, or choose another place.";
    throw new CloisterError("E_WRITE", `${path}: got ${code}, expected a path to write to`, { fix, cause });
  }
}
