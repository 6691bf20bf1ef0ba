import { afterEach, expect, test } from "vitest";
import { enterEnclave } from "../../runtime/place.ts";
import { NO_VSOCK } from "./parent.ts";

afterEach(() => enterEnclave(undefined));

test("outside an enclave the import works, and every use says so", async () => {
  const { isDebug, ready, vsock } = await import("../../runtime/index.ts");
  const expected = expect.objectContaining({ code: "E_NOT_IN_ENCLAVE" });
  expect(() => isDebug()).toThrow(expected);
  expect(() => ready()).toThrow(expected);
  expect(() => vsock.listen({ port: 1 }, () => {})).toThrow(expected);
  await expect(vsock.connect({ cid: 3, port: 1 })).rejects.toThrow(expected);
});

test("inside, the mode is known", async () => {
  const { isDebug } = await import("../../runtime/index.ts");
  enterEnclave({ debug: true, vsock: NO_VSOCK });
  expect(isDebug()).toBe(true);
});
