/** Which module the boot takes, and what it does where one refuses. (That it seeds the kernel: test/e2e/nsm.test.ts.) */
import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CMDLINE_X86_64, TAIL_EMULATED_NSM } from "../../format/abi.ts";
import { encodeNsmResponse, type NsmResponse } from "../../format/nsm.ts";
import { openModule, readPcr0, seedEntropy } from "../../init/nsm.ts";
import { EmulatedModule } from "../../runtime/module.ts";

const DEVICE = "virtio_mmio.device=512@0xfeb00000:5";

describe.skipIf(existsSync("/dev/nsm"))("without /dev/nsm", () => {
  test.each([
    ["the emulator's tail", `${CMDLINE_X86_64} ${DEVICE} reboot=t ${TAIL_EMULATED_NSM}`, true],
    ["the hypervisor's tail", `${CMDLINE_X86_64} ${DEVICE}`, false],
    ["a measured word that looks like the tail's", `${CMDLINE_X86_64} ${TAIL_EMULATED_NSM} ${DEVICE}`, false],
    ["the word without any tail", `${CMDLINE_X86_64} ${TAIL_EMULATED_NSM}`, false],
    ["another value", `${CMDLINE_X86_64} ${DEVICE} ${TAIL_EMULATED_NSM}2`, false],
  ])("%s", (_, cmdline, isEmulated) => {
    const module = openModule(cmdline);
    if (isEmulated) expect(module).toBeInstanceOf(EmulatedModule);
    else expect(module).toBeUndefined();
  });

  test("the mode is not asked of an emulator, whose tail says it", () => {
    expect(readPcr0(openModule(`${DEVICE} ${TAIL_EMULATED_NSM}`))).toBeUndefined();
    expect(readPcr0(undefined)).toBeUndefined();
  });
});

test.each<[string, NsmResponse]>([
  ["InternalError", { type: "Error", error: "InternalError" }],
  ["LockPCR", { type: "LockPCR" }],
])("a module that answers GetRandom with %s ends the boot", async (got, response) => {
  const module = { exchange: async () => encodeNsmResponse(response) };
  await expect(seedEntropy(module)).rejects.toThrow(`NSM: GetRandom: got ${got}`);
});

test("without a module the log says what the kernel trusts", async () => {
  expect(await seedEntropy(undefined)).toContain("no NSM here");
});
