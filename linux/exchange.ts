/**
 * A question and its answer on a stream socket's descriptor, byte for byte: what follows the answer stays in the socket
 * for whoever gets the descriptor next.
 */
import { constants } from "node:os";
import { bind, errno, SystemError } from "./ffi.ts";
import { becomes } from "./ready.ts";

const libc = bind({
  send: { arguments: ["i32", "buffer", "u64", "i32"], return: "i64" },
  recv: { arguments: ["i32", "buffer", "u64", "i32"], return: "i64" },
});

const MSG_NOSIGNAL = 0x4000;

/** Send a question that fits the empty buffer of a new connection. Throws SystemError. */
export function sendQuestion(fd: number, bytes: Uint8Array): void {
  const sent = libc.send(fd, bytes, BigInt(bytes.length), MSG_NOSIGNAL);
  if (sent < 0n) throw new SystemError("send", errno());
  if (sent !== BigInt(bytes.length)) throw new SystemError("send", constants.errno.EMSGSIZE);
}

/** So many bytes, and none that follow. Rejects with SystemError (ECONNRESET: it ended before), or the signal's reason. */
export async function receiveAnswer(fd: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let filled = 0; filled < length; ) {
    signal?.throwIfAborted();
    const rest = bytes.subarray(filled);
    const received = libc.recv(fd, rest, BigInt(rest.length), 0);
    if (received === 0n) throw new SystemError("recv", constants.errno.ECONNRESET);
    if (received > 0n) filled += Number(received);
    else if (errno() === constants.errno.EAGAIN) await becomes("readable", fd, signal);
    else throw new SystemError("recv", errno());
  }
  return bytes;
}

/**
 * After the end of reading: is the peer gone for good, or still reading? On AF_VSOCK read(2) says 0 for both, even after
 * a reset; sending nothing says EPIPE for the first (net/vmw_vsock/af_vsock.c, vsock_connectible_sendmsg).
 */
export function isPeerGone(fd: number): boolean {
  return libc.send(fd, new Uint8Array(1), 0n, MSG_NOSIGNAL) < 0n;
}
