/** Whether an image can run in the memory that its configuration gives it. */
import { CloisterError } from "../format/errors.ts";
import type { Ramdisk } from "./ramdisk.ts";

const MIB = 1024 * 1024;
/** Kernel, init and an idle app beside the unpacked files and the packed ones. MiB; measured by bench/memory.ts. */
const OVERHEAD_MIB = 30;
/** nitro-cli refuses an enclave with less than this many times its EIF. */
const NITRO_CLI_FACTOR = 4;

export interface MemoryCheck {
  readonly memoryMiB: { readonly configured: number; readonly needed: number };
  readonly warnings: readonly string[];
}

/** Throws E_MEMORY_TOO_SMALL, with the numbers. */
export function checkMemory(configured: number, ramdisks: readonly Ramdisk[]): MemoryCheck {
  const unpacked = toMiB(ramdisks.reduce((sum, { archiveBytes }) => sum + archiveBytes, 0));
  const packed = toMiB(ramdisks.reduce((sum, { data }) => sum + data.length, 0));
  const needed = unpacked + packed + OVERHEAD_MIB;
  if (configured < needed) {
    throw new CloisterError(
      "E_MEMORY_TOO_SMALL",
      `memory: got ${configured} MiB, expected at least ${needed} MiB ` +
        `(${unpacked} unpacked + ${packed} packed + ${OVERHEAD_MIB} for kernel and runtime)`,
    );
  }
  const warnings =
    configured < packed * NITRO_CLI_FACTOR ? [`nitro-cli wants ${packed * NITRO_CLI_FACTOR} MiB`] : [];
  return { memoryMiB: { configured, needed }, warnings };
}

function toMiB(bytes: number): number {
  return Math.ceil(bytes / MIB);
}
