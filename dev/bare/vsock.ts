/** The parent's side of a bare enclave's vsock. */
import { createServer, type Socket } from "node:net";
import type { VsockStream } from "../../launcher/device.ts";
import { enclaveSocket, parentSocket } from "./folder.ts";
import { BACKLOG, connectSocket, identify } from "./socket.ts";

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
      onConnection(asStream(identify(socket, { cid: this.#cid, port: nextPeerPort++ })));
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
  async connect(port: number, { timeoutMs }: { readonly timeoutMs?: number } = {}): Promise<VsockStream> {
    const path = enclaveSocket(this.#folder, port);
    return asStream(await connectSocket(path, { cid: this.#cid, port }, timeoutMs));
  }

  [Symbol.dispose](): void {
    for (const close of this.#closes) close();
  }
}

function asStream(socket: Socket): VsockStream {
  return socket as unknown as VsockStream;
}
