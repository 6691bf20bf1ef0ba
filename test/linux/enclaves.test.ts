/** Our numbers of /dev/nitro_enclaves against those that the C compiler makes of the kernel's header. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { NE_ENCLAVE_DEBUG_MODE, NE_ENCLAVE_PRODUCTION_MODE, NE_ERR } from "../../launcher/device.ts";
import {
  NE_EIF_IMAGE,
  NE_IMAGE_LOAD_INFO,
  NE_IOCTL,
  NE_START_INFO,
  NE_USER_MEMORY_REGION,
} from "../../linux/enclaves.ts";
import { compile, whyNoCompiler } from "../gcc.ts";

/** C expression → our number. */
const NUMBERS: Readonly<Record<string, number>> = {
  ...NE_IOCTL,
  ...Object.fromEntries(Object.entries(NE_ERR).map(([name, number]) => [`NE_ERR_${name}`, number])),
  NE_EIF_IMAGE: Number(NE_EIF_IMAGE),
  NE_DEFAULT_MEMORY_REGION: 0,
  NE_ENCLAVE_PRODUCTION_MODE,
  NE_ENCLAVE_DEBUG_MODE,
  "sizeof(struct ne_image_load_info)": NE_IMAGE_LOAD_INFO.size,
  "offsetof(struct ne_image_load_info, flags)": NE_IMAGE_LOAD_INFO.flags,
  "offsetof(struct ne_image_load_info, memory_offset)": NE_IMAGE_LOAD_INFO.memoryOffset,
  "sizeof(struct ne_user_memory_region)": NE_USER_MEMORY_REGION.size,
  "offsetof(struct ne_user_memory_region, flags)": NE_USER_MEMORY_REGION.flags,
  "offsetof(struct ne_user_memory_region, memory_size)": NE_USER_MEMORY_REGION.memorySize,
  "offsetof(struct ne_user_memory_region, userspace_addr)": NE_USER_MEMORY_REGION.userspaceAddress,
  "sizeof(struct ne_enclave_start_info)": NE_START_INFO.size,
  "offsetof(struct ne_enclave_start_info, flags)": NE_START_INFO.flags,
  "offsetof(struct ne_enclave_start_info, enclave_cid)": NE_START_INFO.enclaveCid,
};

function askCompiler(expressions: readonly string[]): number[] {
  const folder = mkdtempSync(join(tmpdir(), "cloister-header-"));
  try {
    const source = join(folder, "numbers.c");
    const lines = expressions.map((expression) => `printf("%llu\\n", (unsigned long long)(${expression}));`);
    const includes = ["sys/ioctl.h", "linux/nitro_enclaves.h", "stddef.h", "stdio.h"].map(
      (name) => `#include <${name}>`,
    );
    writeFileSync(source, [...includes, "int main(void) {", ...lines, "return 0; }"].join("\n"));
    compile(source, join(folder, "numbers"));
    return execFileSync(join(folder, "numbers"), { encoding: "utf8" }).trim().split("\n").map(Number);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("every number, size and offset is the header's", ({ skip }) => {
  const reason = whyNoCompiler();
  if (reason !== undefined) skip(reason);
  const expressions = Object.keys(NUMBERS);
  const theirs = askCompiler(expressions);
  expect(Object.fromEntries(expressions.map((expression, index) => [expression, theirs[index]]))).toEqual(
    NUMBERS,
  );
  expect(expressions.filter((expression) => expression.startsWith("NE_ERR_"))).toHaveLength(20);
});
