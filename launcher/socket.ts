/**
 * A Unix socket through which other processes reach the enclave's vsock ports: `CONNECT <port>\n` is answered by
 * `OK <port>\n`, then the bytes flow. Source: firecracker docs/vsock.md, "Host-Initiated Connections".
 */
import { chmodSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { CloisterError } from "../format/errors.ts";
import type { VsockStream } from "./device.ts";
import { relayStreams } from "./relay.ts";

/** `CONNECT 4294967294\n` */
const LINE_MAX = 19;
/** How long a client may take for its line, milliseconds. */
const LINE_LIMIT_MS = 10_000;

export interface VsockSocketServer {
  close(): void;
}

/**
 * Listen on `path`, for this user only. A client whose line is malformed, late or refused by the enclave is closed without an
 * answer, as Firecracker does. Throws E_SOCKET_UNUSABLE.
 */
export async function serveVsockSocket(
  path: string,
  connect: (port: number) => Promise<VsockStream>,
): Promise<VsockSocketServer> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    greet(socket, connect);
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", (error: NodeJS.ErrnoException) => {
    const message = `${path}: got ${error.code}, expected to listen on a Unix socket there`;
    reject(new CloisterError("E_SOCKET_UNUSABLE", message, { cause: error }));
  });
  server.listen(path, resolve);
  await promise;
  chmodSync(path, 0o600);
  return {
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Take the client's line, however it is cut, and nothing behind it. */
function greet(socket: Socket, connect: (port: number) => Promise<VsockStream>): void {
  let line = "";
  const timer = setTimeout(() => socket.destroy(), LINE_LIMIT_MS);
  socket.once("close", () => clearTimeout(timer));
  const onReadable = () => {
    for (let byte = socket.read(1); byte !== null; byte = socket.read(1)) {
      line += String.fromCharCode(byte[0]);
      if (line.endsWith("\n")) {
        socket.off("readable", onReadable);
        clearTimeout(timer);
        void answer(socket, line, connect);
        return;
      }
      if (line.length >= LINE_MAX) {
        socket.destroy();
        return;
      }
    }
  };
  socket.on("readable", onReadable);
}

async function answer(
  socket: Socket,
  line: string,
  connect: (port: number) => Promise<VsockStream>,
): Promise<void> {
  const port = Number(/^CONNECT (\d{1,10})\n$/i.exec(line)?.[1] ?? Number.NaN);
  if (!(port <= 0xffff_fffe)) {
    socket.destroy();
    return;
  }
  try {
    const stream = await connect(port);
    socket.write(`OK ${port}\n`);
    relayStreams(socket, stream);
  } catch {
    // ECONNRESET or ETIMEDOUT: the enclave has no such port, or is gone.
    socket.destroy();
  }
}
