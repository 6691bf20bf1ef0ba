import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { checkKernel, KERNEL_PROBE_SIZE, kernelArch } from "../../format/kernel.ts";
import { patched, refusal, utf8 } from "./vectors.ts";

const bzImage = patched(new Uint8Array(KERNEL_PROBE_SIZE), 0x202, ...utf8("HdrS"));
const image = patched(patched(new Uint8Array(64), 0x38, ...utf8("ARM\x64")), 8, 0, 0, 8);

test("kernels of the right architecture", () => {
  checkKernel(bzImage, "x86_64");
  checkKernel(image, "aarch64");
});

test.each<[string, Uint8Array, "x86_64" | "aarch64", string]>([
  [
    "an Image for x86_64",
    image,
    "x86_64",
    "offset 514 (0x202): got an aarch64 Image, expected an x86_64 bzImage",
  ],
  [
    "a bzImage for aarch64",
    bzImage,
    "aarch64",
    "offset 56 (0x38): got an x86_64 bzImage, expected an aarch64 Image",
  ],
  [
    "vmlinux",
    patched(new Uint8Array(600), 0, 0x7f, ...utf8("ELF")),
    "x86_64",
    "offset 514 (0x202): got an ELF file (vmlinux), expected an x86_64 bzImage",
  ],
  [
    "Image.gz",
    patched(new Uint8Array(600), 0, 0x1f, 0x8b),
    "aarch64",
    "offset 56 (0x38): got a gzip file (Image.gz), expected an aarch64 Image",
  ],
  ["nothing", new Uint8Array(0), "x86_64", "offset 514 (0x202): got no kernel, expected an x86_64 bzImage"],
  [
    "a bzImage cut short",
    bzImage.subarray(0, 0x205),
    "x86_64",
    "offset 514 (0x202): got no kernel, expected an x86_64 bzImage",
  ],
  [
    "an Image of an old kernel",
    patched(image, 8, 0, 0, 0),
    "aarch64",
    "offset 8 (0x8): text_offset: got 0, expected not 0",
  ],
])("refuses %s", (_, bytes, arch, message) => {
  expect(refusal(() => checkKernel(bytes, arch))).toBe(`E_KERNEL: kernel, ${message}`);
});

describe("the kernel of this repository", () => {
  const path = new URL("../../kernel/x86_64/bzImage", import.meta.url);
  test.skipIf(!existsSync(path))("is a bzImage (skipped where it is not built)", () => {
    expect(kernelArch(new Uint8Array(readFileSync(path)))).toBe("x86_64");
  });
});
