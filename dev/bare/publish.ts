/** Published ports of a bare enclave: TCP ports of this machine relayed to its vsock ports. */
import { createServer, type Server, type Socket } from "node:net";
import { CloisterError } from "../../format/errors.ts";
import type { VsockStream } from "../../launcher/device.ts";
import type { Publish, Published } from "../../launcher/publish.ts";
import { headerFor, relayStreams, reset } from "../../launcher/relay.ts";

export interface BarePublisher extends Published {
  /** Connections are relayed from here on, those that wait first. */
  start(connect: (port: number) => Promise<VsockStream>): void;
  /** No more connections; those there are get reset. */
  close(): void;
}

/**
 * Listen. A connection that comes before `start` waits. Rejects with E_PORT_TAKEN or E_PORT_UNUSABLE; E_USAGE for what is
 * no TCP port. `isExpected`: the app was built to read a PROXY protocol header.
 */
export async function publishBare(wanted: Publish, isExpected = false): Promise<BarePublisher> {
  if (!("port" in wanted)) {
    const message = `vsock port ${wanted.vsockPort}: got a Unix or systemd socket, expected a TCP port`;
    throw new CloisterError("E_USAGE", message, { fix: "A bare enclave publishes TCP ports." });
  }
  const { address = "127.0.0.1", vsockPort, proxyProtocol = isExpected } = wanted;
  const publishing = new Publishing(vsockPort, proxyProtocol);
  const port = await listen(publishing.server, address, wanted.port);
  return {
    ...{ address, port, vsockPort },
    start: (connect) => publishing.start(connect),
    close: () => publishing.close(),
  };
}

class Publishing {
  readonly server: Server;
  readonly #vsockPort: number;
  readonly #hasHeader: boolean;
  readonly #sockets = new Set<Socket>();
  #connect: ((port: number) => Promise<VsockStream>) | undefined;
  #waiting: Socket[] = [];

  constructor(vsockPort: number, hasHeader: boolean) {
    this.#vsockPort = vsockPort;
    this.#hasHeader = hasHeader;
    this.server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
  }

  start(connect: (port: number) => Promise<VsockStream>): void {
    this.#connect = connect;
    for (const socket of this.#waiting.splice(0)) void this.#serve(socket, connect);
  }

  close(): void {
    this.server.close();
    for (const socket of this.#sockets) reset(socket);
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // The relay hears of the end by "close".
    socket.on("error", () => {});
    if (this.#connect === undefined) this.#waiting.push(socket);
    else void this.#serve(socket, this.#connect);
  }

  async #serve(socket: Socket, connect: (port: number) => Promise<VsockStream>): Promise<void> {
    const header = this.#hasHeader ? headerFor(socket) : undefined;
    try {
      const stream = await connect(this.#vsockPort);
      if (header !== undefined) stream.write(header);
      relayStreams(socket, stream);
    } catch {
      // ECONNRESET: nothing listens. The client sees its connection reset.
      reset(socket);
    }
  }
}

async function listen(server: Server, address: string, port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", (error: NodeJS.ErrnoException) => {
    const taken = error.code === "EADDRINUSE";
    const message = `${address}:${port}: got ${error.code}, expected ${taken ? "a free port" : "to listen there"}`;
    reject(new CloisterError(taken ? "E_PORT_TAKEN" : "E_PORT_UNUSABLE", message, { cause: error }));
  });
  server.listen(port, address, resolve);
  await promise;
  const bound = server.address();
  return typeof bound === "object" && bound !== null ? bound.port : port;
}
