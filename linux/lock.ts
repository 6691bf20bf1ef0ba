/** flock(2): a lock on an open file, which the kernel takes back however its holder ends. */
import { bind, check } from "./ffi.ts";

const { flock } = bind({ flock: { arguments: ["i32", "i32"], return: "i32" } });

/** sys/file.h */
const LOCK_EX = 2;

/** Wait until this open file alone has the lock; closing the descriptor gives it back. Blocks the thread. Throws SystemError. */
export function lockFile(fd: number): void {
  check(flock(fd, LOCK_EX), "flock");
}
