/**
 * Another process of the same user, or of root's: its memory (process_vm_readv(2)), its descriptors (pidfd_getfd(2)).
 * The kernel asks for what ptrace(2) asks for; with Yama (ptrace_scope 1) that is to be its ancestor.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { closeDescriptor } from "./descriptor.ts";
import { bind, check, errno, ffi, SystemError } from "./ffi.ts";

const libc = bind({
  process_vm_readv: { arguments: ["i32", "buffer", "u64", "buffer", "u64", "u64"], return: "i64" },
  process_vm_writev: { arguments: ["i32", "buffer", "u64", "buffer", "u64", "u64"], return: "i64" },
  syscall: { arguments: ["i64", "i64", "i64", "i64"], return: "i64" },
});

/** asm-generic/unistd.h: the same on x86_64 and aarch64. glibc before 2.36 has no functions for them. */
const SYS_PIDFD_OPEN = 434n;
const SYS_PIDFD_GETFD = 438n;

/** struct iovec: base, length. */
const local = new BigUint64Array(2);
const remote = new BigUint64Array(2);

function point(bytes: Uint8Array, address: bigint): void {
  local[0] = ffi.getRawPointer(bytes);
  local[1] = BigInt(bytes.byteLength);
  remote[0] = address;
  remote[1] = BigInt(bytes.byteLength);
}

/** Fill `target` with the process's memory from `address` on. Throws SystemError: EFAULT, ESRCH (it is gone), EPERM. */
export function readPeer(pid: number, address: bigint, target: Uint8Array): void {
  if (target.byteLength === 0) return;
  point(target, address);
  transferred(libc.process_vm_readv(pid, local, 1n, remote, 1n, 0n), "process_vm_readv", target.byteLength);
}

/** Write into the process's memory. Throws as `readPeer`. */
export function writePeer(pid: number, address: bigint, bytes: Uint8Array): void {
  if (bytes.byteLength === 0) return;
  point(bytes, address);
  transferred(libc.process_vm_writev(pid, local, 1n, remote, 1n, 0n), "process_vm_writev", bytes.byteLength);
}

const EFAULT = 14;

function transferred(count: bigint, syscall: string, wanted: number): void {
  if (count < 0n) throw new SystemError(syscall, errno());
  // The range ends in memory that is not there.
  if (count !== BigInt(wanted)) throw new SystemError(syscall, EFAULT);
}

const PAGE_BYTES = 4096n;

/** A NUL-terminated string; undefined where it is longer than `limit` bytes. Throws as `readPeer`. */
export function readPeerString(pid: number, address: bigint, limit: number): string | undefined {
  const chunks: Buffer[] = [];
  for (let at = address; at < address + BigInt(limit); ) {
    // Never over a page's end: the next one may not be there.
    const chunk = Buffer.alloc(Number(PAGE_BYTES - (at % PAGE_BYTES)));
    readPeer(pid, at, chunk);
    const end = chunk.indexOf(0);
    if (end >= 0) return Buffer.concat([...chunks, chunk.subarray(0, end)]).toString("utf8");
    chunks.push(chunk);
    at += BigInt(chunk.length);
  }
  return undefined;
}

/** The process of a thread. Throws ENOENT where it is gone. */
export function processOf(tid: number): number {
  const [, tgid = ""] = /^Tgid:\t(\d+)$/m.exec(readFileSync(`/proc/${tid}/status`, "utf8")) ?? [];
  return Number(tgid);
}

/** What a descriptor of a process refers to, the same for every copy of it: device and inode. Throws ENOENT. */
export function identify(pid: number | "self", fd: number): string {
  const { dev, ino } = statSync(`/proc/${pid}/fd/${fd}`);
  return `${dev}:${ino}`;
}

/** What each descriptor of a process refers to, as `identify` names it; none where it is gone. */
export function descriptorsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      const stats = statSync(`/proc/${pid}/fd/${fd}`, { throwIfNoEntry: false });
      return stats === undefined ? [] : [`${stats.dev}:${stats.ino}`];
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** A descriptor for the process, readable when it ends. Throws SystemError ESRCH. */
export function openProcess(pid: number): number {
  return check(Number(libc.syscall(SYS_PIDFD_OPEN, BigInt(pid), 0n, 0n)), "pidfd_open", String(pid));
}

/** A copy of a process's descriptor (close-on-exec). Throws SystemError: ESRCH, EBADF, EPERM. */
export function copyDescriptor(pid: number, fd: number): number {
  const process = openProcess(pid);
  try {
    const copy = libc.syscall(SYS_PIDFD_GETFD, BigInt(process), BigInt(fd), 0n);
    return check(Number(copy), "pidfd_getfd", `${pid}, ${fd}`);
  } finally {
    closeDescriptor(process);
  }
}
