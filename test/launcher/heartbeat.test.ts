/** The boot's time limit against nitro-cli's own numbers. */
import { expect, test } from "vitest";
import { heartbeatLimitMs } from "../../launcher/index.ts";

const GIB = 2 ** 30;

// nitro-cli, enclave_proc/resource_manager.rs, test_enclave_ready_timeout: image and memory in GiB, slices of 90 s.
test.each([
  [2, 32, 2],
  [6, 32, 2],
  [10, 32, 3],
  [2, 128, 3],
  [6, 128, 3],
  [10, 128, 4],
])("%i GiB of image in %i GiB of memory: %i slices", (image, memory, slices) => {
  expect(heartbeatLimitMs(image * GIB, memory * GIB)).toBe(slices * 90_000);
});

test("slices begin with their first byte", () => {
  expect(heartbeatLimitMs(1, 1)).toBe(180_000);
  expect(heartbeatLimitMs(6 * GIB + 1, 1)).toBe(270_000);
  expect(heartbeatLimitMs(1, 100 * GIB + 1)).toBe(270_000);
});
