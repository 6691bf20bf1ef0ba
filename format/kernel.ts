/**
 * Whether a file is a kernel that an enclave can boot. Sources: linux Documentation/arch/x86/boot.rst ("header" at
 * 0x202), Documentation/arch/arm64/booting.rst (decompressed Image, "magic" at 0x38).
 */
import type { Arch } from "./abi.ts";
import { at, mismatch } from "./errors.ts";
import { viewOf } from "./struct.ts";

/** This many bytes from the start are enough to tell. */
export const KERNEL_PROBE_SIZE = 0x206;

/** "HdrS", little-endian. */
const BZIMAGE_MAGIC = 0x53726448;
const BZIMAGE_MAGIC_OFFSET = 0x202;
/** "ARM\x64", little-endian. */
const IMAGE_MAGIC = 0x644d5241;
const IMAGE_MAGIC_OFFSET = 0x38;
/** Eight bytes, little-endian; AWS's loader places the kernel by it, and zero means a kernel too old to say. */
const IMAGE_TEXT_OFFSET = 8;

/** What people take for a kernel, by its first bytes. */
const others: readonly (readonly [string, readonly number[]])[] = [
  ["an ELF file (vmlinux)", [0x7f, 0x45, 0x4c, 0x46]],
  ["a gzip file (Image.gz)", [0x1f, 0x8b]],
  ["a zstd file", [0x28, 0xb5, 0x2f, 0xfd]],
  ["an EFI program (zboot)", [0x4d, 0x5a]],
];

/** Throws E_KERNEL unless these first bytes (KERNEL_PROBE_SIZE or more) begin a kernel for `arch`. */
export function checkKernel(bytes: Uint8Array, arch: Arch): void {
  const expected = arch === "x86_64" ? "an x86_64 bzImage" : "an aarch64 Image";
  const found = kernelArch(bytes);
  const magicOffset = arch === "x86_64" ? BZIMAGE_MAGIC_OFFSET : IMAGE_MAGIC_OFFSET;
  if (found !== arch)
    throw mismatch("E_KERNEL", `kernel, ${at(magicOffset)}`, nameOf(bytes, found), expected);
  if (arch === "aarch64" && viewOf(bytes).getBigUint64(IMAGE_TEXT_OFFSET, true) === 0n) {
    throw mismatch("E_KERNEL", `kernel, ${at(IMAGE_TEXT_OFFSET)}: text_offset`, 0, "not 0");
  }
}

/** The architecture of the kernel that begins so, undefined if it is none. */
export function kernelArch(bytes: Uint8Array): Arch | undefined {
  const magic = (offset: number) => (offset + 4 <= bytes.length ? viewOf(bytes).getUint32(offset, true) : 0);
  if (magic(BZIMAGE_MAGIC_OFFSET) === BZIMAGE_MAGIC) return "x86_64";
  if (magic(IMAGE_MAGIC_OFFSET) === IMAGE_MAGIC) return "aarch64";
  return undefined;
}

function nameOf(bytes: Uint8Array, arch: Arch | undefined): string {
  if (arch !== undefined) return arch === "x86_64" ? "an x86_64 bzImage" : "an aarch64 Image";
  const known = others.find(([, magic]) => magic.every((byte, i) => bytes[i] === byte));
  return known?.[0] ?? "no kernel";
}
