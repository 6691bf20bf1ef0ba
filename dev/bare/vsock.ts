/** The parent's side of a bare enclave's vsock. */
import { connect, createServer, type Socket } from "node:net";
import { constants } from "node:os";
import type { VsockStream } from "../../launcher/device.ts";
import { SystemError } from "../../linux/failure.ts";
import { enclaveSocket, parentSocket } from "./folder.ts";

const { ECONNRESET, ETIMEDOUT } = constants.errno;
const CONNECT_TIMEOUT_MS = 10_000;
const BACKLOG = 4096;

/** Ports of peers, which a Unix socket has none of: each is another one. */
let nextPeerPort = 1024;

export class BareParentVsock implements Disposable {
  readonly #folder: string;
  readonly #cid: number;
  readonly #closes = new Set<() => void>();

  /** `cid`: what its streams say they come from. */
  constructor(folder: string, cid: number) {
    this.#folder = folder;
    this.#cid = cid;
  }

  /** Listen on a port of CID_PARENT. */
  listen(port: number, onConnection: (stream: VsockStream) => void): { close(): void } {
    const sockets = new Set<Socket>();
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      onConnection(this.#stream(socket, nextPeerPort++));
    });
    server.listen({ path: parentSocket(this.#folder, port), backlog: BACKLOG });
    const close = () => {
      if (!this.#closes.delete(close)) return;
      server.close();
      for (const socket of sockets) socket.destroy();
    };
    this.#closes.add(close);
    return { close };
  }

  /** Connect to the enclave. Rejects ECONNRESET (nobody listens) or ETIMEDOUT. */
  async connect(
    port: number,
    { timeoutMs = CONNECT_TIMEOUT_MS }: { readonly timeoutMs?: number } = {},
  ): Promise<VsockStream> {
    const where = `vsock ${this.#cid}:${port}`;
    const socket = connect({ path: enclaveSocket(this.#folder, port), allowHalfOpen: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(() => reject(new SystemError("connect", ETIMEDOUT, where)), timeoutMs);
    // ENOENT, ECONNREFUSED: nobody listens, which vsock answers with a reset.
    const onError = () => reject(new SystemError("connect", ECONNRESET, where));
    socket.once("error", onError).once("connect", resolve);
    try {
      await promise;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
      socket.off("error", onError);
    }
    return this.#stream(socket, port);
  }

  #stream(socket: Socket, port: number): VsockStream {
    // remotePort is an accessor of the prototype.
    Object.defineProperties(socket, {
      remoteCid: { value: this.#cid, enumerable: true },
      remotePort: { value: port, enumerable: true },
    });
    return socket as unknown as VsockStream;
  }

  [Symbol.dispose](): void {
    for (const close of this.#closes) close();
  }
}
