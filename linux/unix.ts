/** AF_UNIX sockets with abstract names (unix(7)), chosen or the kernel's own ("autobind"): gone with the socket. */
import { constants } from "node:os";
import { closeDescriptor } from "./descriptor.ts";
import { bind, check, errno, SystemError } from "./ffi.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
/** Connected, with messages that stay whole. */
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
/** struct sockaddr_un (linux/un.h): u16 family, then the name. */
const SOCKADDR_UN_BYTES = 110;
const FAMILY_BYTES = 2;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

const libc = bind({
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  bind: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  listen: { arguments: ["i32", "i32"], return: "i32" },
  connect: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  accept4: { arguments: ["i32", "u64", "u64", "i32"], return: "i32" },
  getsockname: { arguments: ["i32", "buffer", "buffer"], return: "i32" },
  getsockopt: { arguments: ["i32", "i32", "i32", "buffer", "buffer"], return: "i32" },
  fcntl: { arguments: ["i32", "i32", "i64"], return: "i32" },
  poll: { arguments: ["buffer", "u64", "i32"], return: "i32" },
});

/** A socket. `flags`: SOCK_NONBLOCK, SOCK_CLOEXEC. Throws SystemError EMFILE. */
export function openUnix(flags = SOCK_NONBLOCK | SOCK_CLOEXEC, type = SOCK_STREAM): number {
  return check(libc.socket(AF_UNIX, type | flags, 0), "socket", "AF_UNIX");
}

/** The address of an abstract name. */
export function abstractAddress(name: string): Uint8Array {
  const address = Buffer.concat([Buffer.alloc(FAMILY_BYTES + 1), Buffer.from(name)]);
  address.writeUInt16LE(AF_UNIX, 0);
  return address;
}

/** The address of a socket in the file system. */
export function pathAddress(path: string): Uint8Array {
  const address = Buffer.concat([Buffer.alloc(FAMILY_BYTES), Buffer.from(path), Buffer.alloc(1)]);
  address.writeUInt16LE(AF_UNIX, 0);
  return address;
}

/** Bind and listen under an address. False where another socket has it. Throws SystemError. */
export function claimAddress(fd: number, address: Uint8Array, backlog: number): boolean {
  if (libc.bind(fd, address, address.length) === 0) {
    listenUnix(fd, backlog);
    return true;
  }
  if (errno() === constants.errno.EADDRINUSE) return false;
  throw new SystemError("bind", errno(), "AF_UNIX");
}

/** The user of the process at the other end, when it connected or listened. Throws SystemError. */
export function peerUser(fd: number): number {
  // struct ucred: pid i32, uid u32, gid u32.
  const credentials = new Uint32Array(3);
  const result = libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, new Uint32Array([12]));
  check(result, "getsockopt", "SO_PEERCRED");
  return credentials[1] ?? 0;
}

/** Give the socket a name of its own. Returns the address, to connect to. Throws SystemError. */
export function bindUnix(fd: number): Uint8Array {
  const address = new Uint8Array(SOCKADDR_UN_BYTES);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  check(libc.bind(fd, address, FAMILY_BYTES), "bind", "AF_UNIX");
  const length = new Uint32Array([address.length]);
  check(libc.getsockname(fd, address, length), "getsockname", "AF_UNIX");
  return address.subarray(0, length[0]);
}

/** Throws SystemError. */
export function listenUnix(fd: number, backlog: number): void {
  check(libc.listen(fd, backlog), "listen", "AF_UNIX");
}

/**
 * Connect at once, or throw SystemError: ECONNREFUSED (nobody listens there, or not any more), EAGAIN (its backlog is full;
 * a blocking socket waits instead).
 */
export function connectUnix(fd: number, address: Uint8Array): void {
  check(libc.connect(fd, address, address.length), "connect", "AF_UNIX");
}

/** Take a waiting connection; blocks where there is none and the socket does. `flags` as for `openUnix`. */
export function acceptUnix(fd: number, flags = SOCK_NONBLOCK | SOCK_CLOEXEC): number {
  return check(libc.accept4(fd, 0n, 0n, flags), "accept4", "AF_UNIX");
}

/** poll(2) */
const POLLIN = 0x1;

/** Whether a listener has a connection to accept. */
export function hasConnection(fd: number): boolean {
  // struct pollfd: fd i32, events i16, revents i16.
  const pollfd = new DataView(new ArrayBuffer(8));
  pollfd.setInt32(0, fd, true);
  pollfd.setInt16(4, POLLIN, true);
  check(libc.poll(pollfd, 1n, 0), "poll");
  return (pollfd.getInt16(6, true) & POLLIN) !== 0;
}

/** Whether a listener still exists under this address. Throws SystemError. */
export function isBound(address: Uint8Array): boolean {
  const probe = openUnix();
  try {
    if (libc.bind(probe, address, address.length) === 0) return false;
    if (errno() === constants.errno.EADDRINUSE) return true;
    throw new SystemError("bind", errno(), "AF_UNIX");
  } finally {
    closeDescriptor(probe);
  }
}

/** fcntl(2) */
const F_GETFL = 3;

/** Whether calls on the descriptor return EAGAIN in place of waiting. */
export function isNonBlocking(fd: number): boolean {
  return (check(libc.fcntl(fd, F_GETFL, 0n), "fcntl", "F_GETFL") & SOCK_NONBLOCK) !== 0;
}
