/** Whether an image can run in the memory that its configuration gives it. */
import { CloisterError } from "../format/errors.ts";
import type { Ramdisk } from "./ramdisk.ts";

const MIB = 1024 * 1024;
/**
 * MiB beside the packed and the unpacked files when the kernel has all but unpacked the last one: kernel, page tables,
 * watermarks, zstd's window of 8 MiB. Measured: hello (117 unpacked, 36 packed) boots with 190 MiB and not with 188.
 * Node then lives in what the packed files leave.
 */
const OVERHEAD_MIB = 37;
/** nitro-cli refuses an enclave with less memory than this many times its EIF (`enclave_proc/resource_manager.rs`). */
const NITRO_CLI_FACTOR = 4;

export interface MemoryCheck {
  /** MiB. */
  readonly memoryMiB: { readonly configured: number; readonly needed: number };
  readonly warnings: readonly string[];
}

/** `configured` in MiB, `eifBytes` the size of the whole image. Throws E_MEMORY_TOO_SMALL, with the numbers. */
export function checkMemory(
  configured: number,
  ramdisks: readonly Pick<Ramdisk, "archiveBytes" | "data">[],
  eifBytes: number,
): MemoryCheck {
  const unpacked = toMiB(ramdisks.reduce((sum, { archiveBytes }) => sum + archiveBytes, 0));
  const packed = toMiB(ramdisks.reduce((sum, { data }) => sum + data.length, 0));
  const needed = unpacked + packed + OVERHEAD_MIB;
  if (configured < needed) {
    throw new CloisterError(
      "E_MEMORY_TOO_SMALL",
      `memory: got ${configured} MiB, expected at least ${needed} MiB: ` +
        `${unpacked} for unpacked files, ${packed} for packed ones, ${OVERHEAD_MIB} for kernel and Node`,
      { fix: `Set memory: "${Math.ceil(needed / 2) * 2}M" or more in cloister.config.ts.` },
    );
  }
  const wanted = toMiB(eifBytes) * NITRO_CLI_FACTOR;
  if (configured >= wanted) return { memoryMiB: { configured, needed }, warnings: [] };
  const warning = `memory: ${configured} MiB is enough, but nitro-cli starts this image only with ${wanted} MiB`;
  return { memoryMiB: { configured, needed }, warnings: [warning] };
}

function toMiB(bytes: number): number {
  return Math.ceil(bytes / MIB);
}
