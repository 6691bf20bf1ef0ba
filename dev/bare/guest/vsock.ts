/** Vsock of a bare enclave: each port is a Unix socket in the enclave's folder. */
import { existsSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { constants } from "node:os";
import { CID_PARENT } from "../../../format/abi.ts";
import { SystemError } from "../../../linux/failure.ts";
import type {
  ConnectOptions,
  ListenOptions,
  Vsock,
  VsockListener,
  VsockSocket,
} from "../../../runtime/vsock.ts";
import { enclaveSocket, parentSocket } from "../folder.ts";
import { BACKLOG, connectSocket, identify } from "../socket.ts";

const { EADDRINUSE, ECONNRESET } = constants.errno;
/** bind(2) to it: any free port (vsock(7), VMADDR_PORT_ANY). */
const PORT_ANY = 0xffff_ffff;
/** Where the kernel begins too: ports below are reserved. */
const FIRST_FREE_PORT = 1024;

/** Ports of peers, which a Unix socket has none of: each is another one. */
let nextPeerPort = FIRST_FREE_PORT;

export class BareVsock implements Vsock {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  readonly connect = async ({ cid, port, timeoutMs, signal }: ConnectOptions): Promise<VsockSocket> => {
    signal?.throwIfAborted();
    if (cid !== CID_PARENT) throw new SystemError("connect", ECONNRESET, `vsock ${cid}:${port}`);
    const path = parentSocket(this.#folder, port);
    return (await connectSocket(path, { cid, port }, timeoutMs, signal)) as VsockSocket;
  };

  readonly listen = (
    { port: wanted, backlog = BACKLOG, onError }: ListenOptions,
    onConnection: (socket: VsockSocket) => void,
  ): VsockListener => {
    const port = wanted === PORT_ANY ? this.#freePort() : wanted;
    const path = enclaveSocket(this.#folder, port);
    if (existsSync(path)) throw new SystemError("bind", EADDRINUSE, `vsock port ${port}`);
    const server = createServer({ allowHalfOpen: true }, (socket) =>
      onConnection(identify(socket, { cid: CID_PARENT, port: nextPeerPort++ }) as VsockSocket),
    );
    server.on("error", (error) => onError?.(error));
    server.listen({ path, backlog });
    return {
      port,
      close: (callback) => close(server, callback),
      ref: () => void server.ref(),
      unref: () => void server.unref(),
    };
  };

  #freePort(): number {
    for (let port = FIRST_FREE_PORT; ; port++) {
      if (!existsSync(enclaveSocket(this.#folder, port))) return port;
    }
  }
}

/** Its connections are not waited for: they may be another server's by now. */
function close(server: Server, callback: (() => void) | undefined): void {
  server.close();
  if (callback !== undefined) process.nextTick(callback);
}
