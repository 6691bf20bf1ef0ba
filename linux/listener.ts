/** A listening AF_VSOCK socket as a bare descriptor, which other processes can be given. */
import { constants } from "node:os";
import { closeDescriptor } from "./descriptor.ts";
import { bind, check, errno, SystemError } from "./ffi.ts";
import { openStream } from "./stream.ts";
import { bindSocket, decodeAddress, SOCKADDR_VM_BYTES, VsockSocket } from "./vsock.ts";

const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** Connects that arrive while it is full are reset at once, so it is generous. */
const BACKLOG = 4096;

const libc = bind({
  listen: { arguments: ["i32", "i32"], return: "i32" },
  accept4: { arguments: ["i32", "buffer", "buffer", "i32"], return: "i32" },
});

/** Non-blocking, close-on-exec. Throws SystemError: EADDRINUSE, EAFNOSUPPORT (no vsock in this kernel). */
export function openListener(port: number): number {
  const { fd } = bindSocket({ port });
  try {
    check(libc.listen(fd, BACKLOG), "listen", `vsock port ${port}`);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

export interface Accepted {
  readonly fd: number;
  readonly cid: number;
}

/** The next connection; undefined where none waits. Throws SystemError EMFILE. */
export function acceptConnection(listener: number): Accepted | undefined {
  const address = new Uint8Array(SOCKADDR_VM_BYTES);
  const length = new Uint32Array([address.length]);
  const fd = libc.accept4(listener, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) return { fd, cid: decodeAddress(address).cid };
  // EAGAIN: another process with the same listener took it. ECONNABORTED, ECONNRESET: it was given up meanwhile.
  const { EAGAIN, ECONNABORTED, ECONNRESET } = constants.errno;
  if ([EAGAIN, ECONNABORTED, ECONNRESET].includes(errno())) return undefined;
  throw new SystemError("accept4", errno(), "AF_VSOCK");
}

/** An accepted connection as a stream, which owns it. Throws SystemError, with the descriptor still the caller's. */
export function openConnection(fd: number): VsockSocket {
  return openStream(fd, { allowHalfOpen: true }, VsockSocket);
}
