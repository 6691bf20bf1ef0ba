import { expect, test } from "vitest";
import { CMDLINE_X86_64 } from "../../format/abi.ts";
import { isDebugMode, tailWords } from "../../init/mode.ts";

const DEVICE = "virtio_mmio.device=4K@0xd0000000:5";

test.each([
  ["no tail", CMDLINE_X86_64, false],
  ["the hypervisor's tail", `${CMDLINE_X86_64} ${DEVICE} virtio_mmio.device=4K@0xd0001000:6\n`, false],
  ["the emulator's tail", `${CMDLINE_X86_64} ${DEVICE} cloister.debug=1\n`, true],
  ["a measured word that looks like the tail's", `${CMDLINE_X86_64} cloister.debug=1 ${DEVICE}\n`, false],
  ["another value", `${CMDLINE_X86_64} ${DEVICE} cloister.debug=10\n`, false],
  ["an empty line", "", false],
])("debug mode by the cmdline: %s", (_, cmdline, debug) => {
  expect(isDebugMode(cmdline, undefined)).toBe(debug);
});

test("PCR0 decides alone where there is an NSM", () => {
  const cmdline = `${CMDLINE_X86_64} ${DEVICE} cloister.debug=1`;
  const measured = new Uint8Array(48).fill(7);
  expect(isDebugMode(cmdline, measured)).toBe(false);
  expect(isDebugMode(CMDLINE_X86_64, new Uint8Array(48))).toBe(true);
});

test("the tail begins with the first device", () => {
  expect(tailWords(`a b ${DEVICE} c\n`)).toEqual([DEVICE, "c"]);
});
