/** Bytes between a socket of this machine and a stream of the emulator's. Descriptors have linux/relay.ts. */
import type { Socket } from "node:net";
import { encodeProxyHeader } from "../format/proxy.ts";
import type { VsockStream } from "./device.ts";

/** Bytes both ways with backpressure; an end is passed on as an end, a broken connection as a reset. */
export function relayStreams(socket: Socket, stream: VsockStream): void {
  // What broke is told by "close". A side that ended well may still have bytes to deliver to the other.
  stream.on("error", () => {});
  stream.once("close", () => {
    if (stream.errored !== null || !stream.readableEnded || !stream.writableFinished) reset(socket);
  });
  socket.once("close", (hadError) => {
    if (hadError || !socket.readableEnded) stream.destroy();
  });
  if (socket.destroyed) stream.destroy();
  socket.pipe(stream);
  stream.pipe(socket);
}

/** After its FIN a socket cannot be reset any more: libuv refuses (uv_tcp_close_reset, EINVAL) and Node leaks the handle. */
export function reset(socket: Socket): void {
  // A Unix socket has no resets.
  if (socket.writableEnded || socket.remoteFamily === undefined) socket.destroy();
  else socket.resetAndDestroy();
}

/** PROXY protocol v2 header of who connects. A Unix socket's client has no address, nor who is gone already. */
export function headerFor({ remoteAddress, remotePort, localAddress, localPort }: Socket): Uint8Array {
  if (remoteAddress === undefined || remotePort === undefined) return encodeProxyHeader(undefined);
  if (localAddress === undefined || localPort === undefined) return encodeProxyHeader(undefined);
  return encodeProxyHeader({
    source: { address: remoteAddress, port: remotePort },
    destination: { address: localAddress, port: localPort },
  });
}
