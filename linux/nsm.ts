/** /dev/nsm (linux/uapi/linux/nsm.h, Linux 6.8): one raw exchange of CBOR bytes. */
import { openSync } from "node:fs";
import { NSM_RESPONSE_MAX } from "../format/nsm.ts";
import { bind, check, ffi } from "./ffi.ts";

const libc = bind({ ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" } });

export const NSM_DEVICE = "/dev/nsm";
/** _IOWR(0x0A, 0x0, struct nsm_raw); the out-of-tree driver of 4.14 has the same. */
const NSM_IOCTL_RAW = 0xc020_0a00n;

/** A descriptor of /dev/nsm, close-on-exec; undefined where this machine has none. Throws Node's errors (EACCES). */
export function openNsm(): number | undefined {
  try {
    return openSync(NSM_DEVICE, "r+");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // ENXIO, ENODEV: a node without its driver.
    if (code === "ENOENT" || code === "ENXIO" || code === "ENODEV") return undefined;
    throw error;
  }
}

/**
 * Send one request to an open /dev/nsm, return the response. One at a time: the driver holds a mutex.
 * Throws SystemError: EMSGSIZE (over NSM_REQUEST_MAX), ETIMEDOUT (device silent for 120 s).
 */
export function exchangeNsm(fd: number, request: Uint8Array): Uint8Array {
  const response = new Uint8Array(NSM_RESPONSE_MAX);
  // struct nsm_raw: two nsm_iovec { u64 addr, u64 len }, request and response.
  const raw = new BigUint64Array([
    ffi.getRawPointer(request),
    BigInt(request.length),
    ffi.getRawPointer(response),
    BigInt(response.length),
  ]);
  check(libc.ioctl(fd, NSM_IOCTL_RAW, raw), "ioctl", `NSM_IOCTL_RAW, ${request.length} bytes`);
  return response.subarray(0, Number(raw[3]));
}
