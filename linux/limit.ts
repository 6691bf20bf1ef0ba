/** getrlimit(2): what this process may have. */
import { bind, check } from "./ffi.ts";

const libc = bind({ getrlimit: { arguments: ["i32", "buffer"], return: "i32" } });

/** asm-generic/resource.h */
const RLIMIT_NOFILE = 7;

/** How many descriptors this process may have; Node raises the soft limit to the hard one when it starts (node.cc, PlatformInit). */
export function descriptorLimit(): number {
  // struct rlimit: rlim_cur, rlim_max.
  const limit = new BigUint64Array(2);
  check(libc.getrlimit(RLIMIT_NOFILE, limit), "getrlimit", "RLIMIT_NOFILE");
  return Number(limit[0]);
}
