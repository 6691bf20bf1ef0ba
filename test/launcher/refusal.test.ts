/** Every number that a device can refuse a step with has an entry of its own in the catalogue. */
import { constants } from "node:os";
import { expect, test } from "vitest";
import { CloisterError, ERRORS, type ErrorCode } from "../../format/errors.ts";
import { NE_ERR, NitroError } from "../../launcher/device.ts";
import { openNitroDevice } from "../../launcher/index.ts";
import { explainRefusal } from "../../launcher/refusal.ts";

function codeOf(errno: number): ErrorCode {
  const error = explainRefusal(new NitroError("NE_ADD_VCPU", errno, "NE_ADD_VCPU: refused"));
  if (!(error instanceof CloisterError)) throw new Error("no CloisterError");
  expect(error.message).toBe("NE_ADD_VCPU: refused");
  return error.code;
}

test.each(Object.entries(NE_ERR))("NE_ERR_%s", (name, errno) => {
  const code = codeOf(errno);
  expect(code).toBe(`E_NE_${name}`);
  expect(ERRORS[code].fix.length).toBeGreaterThan(10);
});

const { EFAULT, EINVAL, EIO, EMFILE, ENFILE, ENODEV, ENOMEM, ENOTTY, EPERM, ETIMEDOUT } = constants.errno;

test.each<[errno: number, code: ErrorCode]>([
  [EFAULT, "E_NE_FAULT"],
  [EINVAL, "E_NE_INVALID"],
  [EIO, "E_NE_OTHER_PROCESS"],
  [EMFILE, "E_NE_DESCRIPTORS"],
  [ENFILE, "E_NE_DESCRIPTORS"],
  [ENODEV, "E_NO_DEVICE"],
  [ENOMEM, "E_NE_NO_MEMORY"],
  [ENOTTY, "E_NE_UNKNOWN_IOCTL"],
  [ETIMEDOUT, "E_NE_TIMEOUT"],
  [EPERM, "E_NE_IOCTL"],
  [276, "E_NE_IOCTL"],
])("errno %i is %s", (errno, code) => expect(codeOf(errno)).toBe(code));

test("what is no refusal stays as it is", () => {
  const error = new TypeError("BUG");
  expect(explainRefusal(error)).toBe(error);
});

test.each<[path: string, code: ErrorCode]>([
  ["/dev/no-such-device", "E_NO_DEVICE"],
  ["/proc", "E_DEVICE"],
])("opening %s is %s", (path, code) => {
  expect(() => openNitroDevice(path)).toThrow(expect.objectContaining({ code }));
});
