/** Messages with descriptors over AF_UNIX sockets: sendmsg(2), recvmsg(2), unix(7) SCM_RIGHTS. */
import { constants } from "node:os";
import { closeDescriptor } from "./descriptor.ts";
import { bind, errno, ffi, SystemError } from "./ffi.ts";

const libc = bind({
  sendmsg: { arguments: ["i32", "buffer", "i32"], return: "i64" },
  recvmsg: { arguments: ["i32", "buffer", "i32"], return: "i64" },
});

/** asm-generic/socket.h, linux/socket.h */
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** struct msghdr (recvmsg(2)) on 64-bit Linux, bytes. */
const MSGHDR = { name: 0, namelen: 8, iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48 } as const;
const MSGHDR_BYTES = 56;
/** struct iovec: base, length. */
const IOVEC_BYTES = 16;
/** struct cmsghdr (cmsg(3)): length u64 with this header, level i32, type i32, then the data, padded to 8. */
const CMSGHDR = { length: 0, level: 8, type: 12, data: 16 } as const;
/** SCM_MAX_FD (unix(7)): the most descriptors that the kernel passes in one message. */
const DESCRIPTORS_MAX = 253;
const CONTROL_BYTES = CMSGHDR.data + DESCRIPTORS_MAX * 4 + 4;

// One set of structs for all calls: they are synchronous, and each thread evaluates this module on its own.
const header = new DataView(new ArrayBuffer(MSGHDR_BYTES));
const iovec = new DataView(new ArrayBuffer(IOVEC_BYTES));
const control = new DataView(new ArrayBuffer(CONTROL_BYTES));
const iovecAddress = ffi.getRawPointer(iovec);
const controlAddress = ffi.getRawPointer(control);

function prepare(bytes: Uint8Array, controlBytes: number): void {
  iovec.setBigUint64(0, bytes.byteLength === 0 ? 0n : ffi.getRawPointer(bytes), true);
  iovec.setBigUint64(8, BigInt(bytes.byteLength), true);
  header.setBigUint64(MSGHDR.iov, iovecAddress, true);
  header.setBigUint64(MSGHDR.iovlen, 1n, true);
  header.setBigUint64(MSGHDR.control, controlBytes === 0 ? 0n : controlAddress, true);
  header.setBigUint64(MSGHDR.controllen, BigInt(controlBytes), true);
  header.setInt32(MSGHDR.flags, 0, true);
}

/**
 * Send bytes with copies of `descriptors` attached to the first of them. Returns how many bytes the socket took;
 * undefined where it is full. Throws SystemError (EPIPE: the peer is gone).
 */
export function sendMessage(
  fd: number,
  bytes: Uint8Array,
  descriptors: readonly number[] = [],
): number | undefined {
  if (descriptors.length > DESCRIPTORS_MAX) {
    throw new RangeError(`BUG: ${descriptors.length} descriptors in one message, at most ${DESCRIPTORS_MAX}`);
  }
  const length = CMSGHDR.data + descriptors.length * 4;
  if (descriptors.length > 0) {
    control.setBigUint64(CMSGHDR.length, BigInt(length), true);
    control.setInt32(CMSGHDR.level, SOL_SOCKET, true);
    control.setInt32(CMSGHDR.type, SCM_RIGHTS, true);
    for (const [i, descriptor] of descriptors.entries())
      control.setInt32(CMSGHDR.data + i * 4, descriptor, true);
  }
  prepare(bytes, descriptors.length > 0 ? align(length) : 0);
  const sent = libc.sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0n) return Number(sent);
  if (errno() === constants.errno.EAGAIN) return undefined;
  throw new SystemError("sendmsg", errno(), String(fd));
}

export interface ReceivedMessage {
  /** Bytes put into the buffer; 0: the peer shut its side down. */
  readonly bytes: number;
  /** The caller's to close. Close-on-exec is set. */
  readonly descriptors: readonly number[];
}

/** Receive into `buffer`, with the descriptors attached. undefined: nothing there. Throws SystemError. */
export function receiveMessage(fd: number, buffer: Uint8Array): ReceivedMessage | undefined {
  prepare(buffer, CONTROL_BYTES);
  const received = libc.recvmsg(fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0n) {
    if (errno() === constants.errno.EAGAIN) return undefined;
    throw new SystemError("recvmsg", errno(), String(fd));
  }
  const descriptors = receivedDescriptors(Number(header.getBigUint64(MSGHDR.controllen, true)));
  if (header.getInt32(MSGHDR.flags, true) & MSG_CTRUNC) {
    // recvmsg(2): there is room for all, so this process has no numbers left for them.
    for (const descriptor of descriptors) closeDescriptor(descriptor);
    throw new SystemError("recvmsg", constants.errno.EMFILE, String(fd));
  }
  return { bytes: Number(received), descriptors };
}

function receivedDescriptors(controlBytes: number): number[] {
  const descriptors: number[] = [];
  let offset = 0;
  while (offset + CMSGHDR.data <= controlBytes) {
    const length = Number(control.getBigUint64(offset + CMSGHDR.length, true));
    if (length < CMSGHDR.data) break;
    const isRights =
      control.getInt32(offset + CMSGHDR.level, true) === SOL_SOCKET &&
      control.getInt32(offset + CMSGHDR.type, true) === SCM_RIGHTS;
    const end = isRights ? offset + length : offset;
    for (let at = offset + CMSGHDR.data; at + 4 <= end; at += 4) descriptors.push(control.getInt32(at, true));
    offset += align(length);
  }
  return descriptors;
}

/** CMSG_ALIGN of a 64-bit kernel. */
function align(bytes: number): number {
  return (bytes + 7) & ~7;
}
