/** clock_gettime(2), clock_settime(2). */
import { bind, check } from "./ffi.ts";

const libc = bind({
  clock_gettime: { arguments: ["i32", "buffer"], return: "i32" },
  clock_settime: { arguments: ["i32", "buffer"], return: "i32" },
});

/** linux/time.h */
const CLOCK_REALTIME = 0;
const CLOCK_BOOTTIME = 7;

/** Milliseconds since the kernel started. */
export function uptimeMs(): number {
  const timespec = new BigInt64Array(2);
  check(libc.clock_gettime(CLOCK_BOOTTIME, timespec), "clock_gettime");
  const [seconds = 0n, nanoseconds = 0n] = timespec;
  return Number(seconds) * 1000 + Number(nanoseconds) / 1e6;
}

/** Set the machine's clock, Unix milliseconds. Throws SystemError (EPERM, EINVAL). */
export function setClock(unixMs: number): void {
  const seconds = Math.floor(unixMs / 1000);
  const nanoseconds = Math.round((unixMs - seconds * 1000) * 1e6);
  const timespec = new BigInt64Array([BigInt(seconds), BigInt(nanoseconds)]);
  check(libc.clock_settime(CLOCK_REALTIME, timespec), "clock_settime");
}
