/** What an open EIF says of itself, and its PCRs. */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { describeEif, type EifDescription } from "../format/describe.ts";
import { CloisterError } from "../format/errors.ts";

/** Throws E_EIF_* or what is wrong with the metadata; `path` is for the messages. */
export async function describeOpenFile(file: FileHandle, path: string): Promise<EifDescription> {
  const stat = await file.stat();
  if (!stat.isFile()) throw new CloisterError("E_EIF_READ", `${path}: got no regular file, expected an EIF`);
  const reader = {
    size: stat.size,
    read: async (offset: number, length: number) => {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    },
  };
  try {
    return await describeEif(reader, { createSha384: () => createHash("sha384"), crc32 });
  } catch (error) {
    // The codec knows offsets, not names.
    if (error instanceof CloisterError) error.message = `${path}: ${error.message}`;
    throw error;
  }
}

/** Throws E_EIF_READ. */
export async function openEif(path: string): Promise<FileHandle> {
  try {
    return await open(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new CloisterError("E_EIF_READ", `${path}: got ${code}, expected a readable file`, { cause });
  }
}
