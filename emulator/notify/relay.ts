/** Between the command's sockets and the enclaves' streams. */
import type { VsockStream } from "../../launcher/device.ts";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { copyDescriptor } from "../../linux/peer.ts";
import { openStream } from "../../linux/stream.ts";
import * as unix from "../../linux/unix.ts";
import type { Call } from "./call.ts";

/** Do something on a copy of the socket in the first argument: it shares everything with the command's but its number. */
export function withCopy<T>(call: Call, action: (fd: number) => T): T {
  const copy = copyDescriptor(call.pid, call.int(0));
  try {
    return action(copy);
  } finally {
    closeDescriptor(copy);
  }
}

/** Connect a socket of the command to one of ours, which is returned. */
export function meet(socket: number): number {
  const rendezvous = unix.openUnix();
  try {
    const address = unix.bindUnix(rendezvous);
    unix.listenUnix(rendezvous, 1);
    unix.connectUnix(socket, address);
    return unix.acceptUnix(rendezvous);
  } finally {
    closeDescriptor(rendezvous);
  }
}

/** Bytes both ways; an end is passed on as an end, a broken side breaks the other. Owns the descriptor. */
export function relay(fd: number, stream: VsockStream): void {
  const socket = openStream(fd, { allowHalfOpen: true });
  // Whoever broke, the other side hears of it by "close".
  for (const side of [socket, stream]) side.on("error", () => {});
  stream.once("close", () => {
    // What the enclave said before its end is still on its way to the command.
    if (stream.readableEnded) socket.destroySoon();
    else socket.destroy();
  });
  socket.once("close", () => {
    if (!socket.readableEnded || !socket.writableFinished) stream.destroy();
  });
  socket.pipe(stream);
  stream.pipe(socket);
}
