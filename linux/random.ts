/** random(4): entropy for the kernel's generator. */
import { closeSync, openSync } from "node:fs";
import { bind, check } from "./ffi.ts";

const libc = bind({ ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" } });

/** linux/random.h: _IOW('R', 0x03, int[2]). */
const RNDADDENTROPY = 0x4008_5203n;

/** Mix bytes into the kernel's generator and credit every bit of them. Throws SystemError (EPERM). */
export function addEntropy(bytes: Uint8Array): void {
  // struct rand_pool_info: i32 entropy_count (bits), i32 buf_size (bytes), then the bytes.
  const info = new Uint8Array(8 + bytes.length);
  const view = new DataView(info.buffer);
  view.setInt32(0, bytes.length * 8, true);
  view.setInt32(4, bytes.length, true);
  info.set(bytes, 8);
  const device = openSync("/dev/random", "w");
  try {
    check(libc.ioctl(device, RNDADDENTROPY, info), "ioctl", "RNDADDENTROPY");
  } finally {
    closeSync(device);
  }
}
