/** Descriptors: close(2), pipe2(2), dup3(2), fcntl(2), socketpair(2). */
import { bind, check } from "./ffi.ts";

/** asm-generic/fcntl.h; the same on x86_64 and aarch64. */
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

/** linux/fcntl.h */
const F_DUPFD_CLOEXEC = 1030;
const F_SETPIPE_SZ = 1031;
const AF_UNIX = 1;
const SOCK_STREAM = 1;

const libc = bind({
  close: { arguments: ["i32"], return: "i32" },
  pipe2: { arguments: ["buffer", "i32"], return: "i32" },
  fcntl: { arguments: ["i32", "i32", "i64"], return: "i32" },
  dup3: { arguments: ["i32", "i32", "i32"], return: "i32" },
  socketpair: { arguments: ["i32", "i32", "i32", "buffer"], return: "i32" },
});

/** Close a descriptor. Linux frees it whatever close(2) answers, so the answer is of no use. */
export function closeDescriptor(fd: number): void {
  libc.close(fd);
}

/** A pipe. `flags`: O_CLOEXEC, O_NONBLOCK. */
export function makePipe(flags = O_CLOEXEC): { readonly readEnd: number; readonly writeEnd: number } {
  const pair = new Int32Array(2);
  check(libc.pipe2(pair, flags), "pipe2");
  const [readEnd = -1, writeEnd = -1] = pair;
  return { readEnd, writeEnd };
}

/** Have a pipe hold at most this many bytes, rounded up to a power of two of pages. */
export function limitPipe(fd: number, bytes: number): void {
  check(libc.fcntl(fd, F_SETPIPE_SZ, BigInt(bytes)), "fcntl", `F_SETPIPE_SZ ${fd}`);
}

/** Two connected AF_UNIX stream sockets. */
export function makeSocketPair(): readonly [number, number] {
  const pair = new Int32Array(2);
  const type = SOCK_STREAM | O_CLOEXEC | O_NONBLOCK;
  check(libc.socketpair(AF_UNIX, type, 0, pair), "socketpair");
  const [first = -1, second = -1] = pair;
  return [first, second];
}

/** Another number of the same open file (close-on-exec). Throws SystemError EMFILE. */
export function copyDescriptor(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0n), "fcntl", `F_DUPFD_CLOEXEC ${fd}`);
}

/** Make `target` another number of `source`, closing what it was. `flags`: O_CLOEXEC or 0. */
export function replaceDescriptor(source: number, target: number, flags = 0): void {
  check(libc.dup3(source, target, flags), "dup3", `${source}, ${target}`);
}
