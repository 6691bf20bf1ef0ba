/**
 * A server that listens on TCP is reachable on the vsock port of the same number, without a hop over the loopback: every
 * vsock connection is handed to the server as if it had accepted it itself.
 */
import { Server, type Socket } from "node:net";
import type { Listen, VsockListener } from "./vsock.ts";

/** The part of net.Server and net.Socket that lib/net.js shares between accepting and closing. */
interface AcceptingServer extends Server {
  _connections: number;
  readonly allowHalfOpen?: boolean;
}
interface AcceptedSocket extends Socket {
  server: Server;
  _server: Server;
}

/**
 * Give a server a connection as net.Server's own accept does: counted, so that close(), maxConnections, getConnections()
 * and keep-alive closing work.
 */
export function acceptInto(target: Server, stream: Socket): void {
  const server = target as AcceptingServer;
  const socket = stream as AcceptedSocket;
  if (server.maxConnections != null && server._connections >= server.maxConnections) {
    socket.destroy();
    server.emit("drop");
    return;
  }
  socket.allowHalfOpen = server.allowHalfOpen ?? false;
  server._connections++;
  socket.server = server;
  socket._server = server;
  server.emit("connection", socket);
}

export interface MirrorOptions {
  /** Ports of the measured configuration. */
  readonly ports: readonly number[];
  /** A server became reachable on this vsock port. */
  readonly onListening: (port: number) => void;
  /** A line for the log. */
  readonly say: (line: string) => void;
  readonly listen: Listen;
}

const LOOPBACK = /^(127\.|::1$|::ffff:127\.)/;

/**
 * From here on, servers that listen on TCP also listen on vsock. One that is bound to the loopback alone is private, as
 * it would be on any machine, unless the configuration lists its port. A vsock port that is taken is the server's 'error',
 * and the server is closed.
 */
export function mirrorServers({ ports, onListening, say, listen }: MirrorOptions): void {
  const mirrors = new WeakMap<Server, VsockListener>();
  const awaited = new WeakSet<Server>();
  const { listen: listenTcp, close } = Server.prototype;

  const mirror = (server: Server) => {
    awaited.delete(server);
    const address = server.address();
    if (address === null || typeof address === "string") return;
    const { port } = address;
    if (LOOPBACK.test(address.address) && !ports.includes(port)) {
      say(`${address.address}:${port} is private to the enclave; listing ${port} in "ports" publishes it`);
      return;
    }
    if (ports.length > 0 && !ports.includes(port)) {
      say(
        `listening on port ${port}, and "ports" lists ${ports.join(", ")}: nothing is published on ${port}`,
      );
    }
    const onError = (error: Error) => say(`vsock port ${port}: ${error.message}`);
    try {
      const listener = listen({ port, onError }, (socket) => acceptInto(server, socket));
      // The TCP socket is what keeps the process alive, and what unref() lets go.
      listener.unref();
      mirrors.set(server, listener);
    } catch (error) {
      server.close();
      process.nextTick(() => server.emit("error", error));
      return;
    }
    onListening(port);
  };

  Server.prototype.listen = function (this: Server, ...args: unknown[]): Server {
    // A listen() that failed is tried again by many programs, and its "listening" is still to come.
    if (!awaited.has(this)) this.prependOnceListener("listening", () => mirror(this));
    awaited.add(this);
    return Reflect.apply(listenTcp, this, args) as Server;
  } as typeof listenTcp;

  Server.prototype.close = function (this: Server, ...args: unknown[]): Server {
    mirrors.get(this)?.close();
    mirrors.delete(this);
    return Reflect.apply(close, this, args) as Server;
  } as typeof close;
}
