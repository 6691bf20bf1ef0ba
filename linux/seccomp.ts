/**
 * seccomp(2) user notification (seccomp_unotify(2), linux/seccomp.h): system calls of other processes that this one
 * answers. x86_64.
 */
import { constants } from "node:os";
import { bind, check, errno, ffi, SystemError } from "./ffi.ts";

const libc = bind({
  prctl: { arguments: ["i32", "u64", "u64", "u64", "u64"], return: "i32" },
  syscall: { arguments: ["i64", "i64", "i64", "buffer"], return: "i64" },
  ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" },
  poll: { arguments: ["buffer", "u64", "i32"], return: "i32" },
});

/** asm/unistd_64.h; glibc has no function for it. */
const SYS_SECCOMP = 317n;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_SET_MODE_FILTER = 1n;
const SECCOMP_FILTER_FLAG_NEW_LISTENER = 8n;

/** struct sock_filter (linux/filter.h): one instruction of classic BPF. */
export interface Instruction {
  readonly code: number;
  /** How many instructions to skip where the comparison holds, and where it does not. */
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

const SOCK_FILTER_BYTES = 8;

/**
 * Put a filter on the calling thread, for good: no_new_privs is set, which setuid programs respect. Returns the listener
 * (close-on-exec). From here on each call that the filter notifies of waits for whoever reads it, so say nothing more
 * than the listener's number to them. Throws SystemError: EBUSY (under another listener), EINVAL, ENOSYS.
 */
export function installFilter(program: readonly Instruction[]): number {
  const code = new DataView(new ArrayBuffer(program.length * SOCK_FILTER_BYTES));
  for (const [index, { code: operation, jt, jf, k }] of program.entries()) {
    code.setUint16(index * SOCK_FILTER_BYTES, operation, true);
    code.setUint8(index * SOCK_FILTER_BYTES + 2, jt);
    code.setUint8(index * SOCK_FILTER_BYTES + 3, jf);
    code.setUint32(index * SOCK_FILTER_BYTES + 4, k, true);
  }
  // struct sock_fprog: u16 length, padding, pointer.
  const prog = new BigUint64Array([BigInt(program.length), ffi.getRawPointer(code)]);
  check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n), "prctl", "PR_SET_NO_NEW_PRIVS");
  const fd = libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, prog);
  return check(Number(fd), "seccomp");
}

/** _IOWR and _IOW of magic '!'. */
const SECCOMP_IOCTL_NOTIF_RECV = 0xc050_2100n;
const SECCOMP_IOCTL_NOTIF_SEND = 0xc018_2101n;
const SECCOMP_IOCTL_NOTIF_ID_VALID = 0x4008_2102n;
const SECCOMP_IOCTL_NOTIF_ADDFD = 0x4018_2103n;
const SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x4008_2104n;
const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1n;
const SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1;
const SECCOMP_ADDFD_FLAG_SEND = 2;

const { ioctl: setFlags } = bind({ ioctl: { arguments: ["i32", "u64", "u64"], return: "i32" } });

/**
 * Have caller and supervisor take turns on one CPU, as they wait for each other anyway: an open(2) costs 31 µs in place
 * of 41 (Linux 6.6).
 */
export function answerInTurn(listener: number): void {
  if (setFlags(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) === 0) return;
  // EINVAL: Linux before 6.6 has no such flag.
  if (errno() !== constants.errno.EINVAL)
    throw new SystemError("ioctl", errno(), "SECCOMP_IOCTL_NOTIF_SET_FLAGS");
}

/** struct seccomp_notif: id u64, pid u32, flags u32, then struct seccomp_data: nr i32, arch u32, ip u64, args u64[6]. */
const NOTIF = { id: 0, pid: 8, number: 16, args: 32, size: 80 } as const;
/** struct seccomp_notif_resp: id u64, val i64, error i32, flags u32. */
const RESPONSE = { id: 0, value: 8, error: 16, flags: 20, size: 24 } as const;
/** struct seccomp_notif_addfd: id u64, flags u32, srcfd u32, newfd u32, newfd_flags u32. */
const ADDFD = { id: 0, flags: 8, source: 12, target: 16, targetFlags: 20, size: 24 } as const;

/** A system call that waits for its answer. */
export interface Notification {
  readonly id: bigint;
  /** The thread that made it, as /proc here names it. */
  readonly tid: number;
  readonly number: number;
  readonly args: readonly bigint[];
}

// One set of structs for all calls: they are synchronous, and each thread evaluates this module on its own.
const notif = new DataView(new ArrayBuffer(NOTIF.size));
const response = new DataView(new ArrayBuffer(RESPONSE.size));
const addfd = new DataView(new ArrayBuffer(ADDFD.size));

/**
 * The next call that waits; undefined where there is none. The ioctl would block then, so ask `pollListener` first.
 * Throws SystemError.
 */
export function receiveNotification(listener: number): Notification | undefined {
  // The kernel refuses a struct that is not zero (EINVAL).
  new Uint8Array(notif.buffer).fill(0);
  if (libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, notif) < 0) {
    // The thread died, or a signal took it out of the call, since it was announced.
    if (errno() === constants.errno.ENOENT) return undefined;
    // A signal came while we looked: the event loop comes back.
    if (errno() === constants.errno.EINTR) return undefined;
    throw new SystemError("ioctl", errno(), "SECCOMP_IOCTL_NOTIF_RECV");
  }
  return {
    id: notif.getBigUint64(NOTIF.id, true),
    tid: notif.getUint32(NOTIF.pid, true),
    number: notif.getInt32(NOTIF.number, true),
    args: Array.from({ length: 6 }, (_, index) => notif.getBigUint64(NOTIF.args + index * 8, true)),
  };
}

/** poll(2) */
const POLLIN = 0x1;
const POLLHUP = 0x10;

/** Whether a call waits, and whether no process is left that could make one. */
export function pollListener(listener: number): { readonly waiting: boolean; readonly ended: boolean } {
  // struct pollfd: fd i32, events i16, revents i16.
  const pollfd = new DataView(new ArrayBuffer(8));
  pollfd.setInt32(0, listener, true);
  pollfd.setInt16(4, POLLIN, true);
  check(libc.poll(pollfd, 1n, 0), "poll");
  const events = pollfd.getInt16(6, true);
  return { waiting: (events & POLLIN) !== 0, ended: (events & POLLHUP) !== 0 };
}

export type Answer =
  /** The call's result. */
  | { readonly value: number }
  /** A positive errno; the driver's own, 256 and up, too. */
  | { readonly errno: number }
  /** The kernel goes on with the call as it is. */
  | { readonly proceed: true };

/** Answer a call. False where nobody waits for it any more. */
export function sendAnswer(listener: number, id: bigint, answer: Answer): boolean {
  response.setBigUint64(RESPONSE.id, id, true);
  response.setBigInt64(RESPONSE.value, "value" in answer ? BigInt(answer.value) : 0n, true);
  response.setInt32(RESPONSE.error, "errno" in answer ? -answer.errno : 0, true);
  response.setUint32(RESPONSE.flags, "proceed" in answer ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0, true);
  return delivered(libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response), "SEND");
}

/**
 * Answer a call with a descriptor: a copy of `source` under the lowest free number, which is the call's result. `flags`:
 * O_CLOEXEC or 0. False where nobody waits for it any more. Linux 5.14.
 */
export function sendDescriptor(listener: number, id: bigint, source: number, flags: number): boolean {
  addfd.setBigUint64(ADDFD.id, id, true);
  addfd.setUint32(ADDFD.flags, SECCOMP_ADDFD_FLAG_SEND, true);
  addfd.setUint32(ADDFD.source, source, true);
  addfd.setUint32(ADDFD.target, 0, true);
  addfd.setUint32(ADDFD.targetFlags, flags, true);
  return delivered(libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, addfd), "ADDFD");
}

function delivered(result: number, name: string): boolean {
  if (result >= 0) return true;
  // The thread died, or a signal took it out of the call.
  if (errno() === constants.errno.ENOENT) return false;
  throw new SystemError("ioctl", errno(), `SECCOMP_IOCTL_NOTIF_${name}`);
}

/** Whether the call still waits: what was read of its process since it came is of that process. */
export function isWaiting(listener: number, id: bigint): boolean {
  const ids = new BigUint64Array([id]);
  return delivered(libc.ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, ids), "ID_VALID");
}
