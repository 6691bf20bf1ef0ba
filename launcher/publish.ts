/** Published ports: a TCP port of the parent relayed to a vsock port of the enclave. */
import { createServer, type Server, type Socket } from "node:net";
import { CloisterError } from "../format/errors.ts";
import type { VsockStream } from "./device.ts";
import { type Traffic, TrafficCounter } from "./traffic.ts";

export interface Publish {
  /** Default: 127.0.0.1. */
  readonly address?: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly vsockPort: number;
}

export interface Published {
  readonly address: string;
  readonly port: number;
  readonly vsockPort: number;
}

export interface Publisher extends Published {
  /** Connections are relayed from here on, those that wait first. */
  start(connect: (port: number) => Promise<VsockStream>): void;
  /** No more connections; those there are get reset. */
  close(): void;
  traffic(): Traffic;
}

/**
 * Listen. A connection that comes before `start` waits: who starts an enclave and connects at once gets an answer, not
 * a refusal. The kernel's backlog bounds how many wait unaccepted, MAX_WAITING how many accepted.
 * Throws E_PORT_TAKEN or E_PORT_UNUSABLE.
 */
export async function publishPort({ address = "127.0.0.1", port, vsockPort }: Publish): Promise<Publisher> {
  const sockets = new Set<Socket>();
  const counter = new TrafficCounter();
  const waiting: Socket[] = [];
  let relay = (socket: Socket): void => {
    waiting.push(socket);
  };
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    counter.follow(socket);
    socket.once("close", () => sockets.delete(socket));
    // The relay hears of the end by "close".
    socket.on("error", () => {});
    relay(socket);
  });
  await listen(server, address, port);
  const bound = server.address();
  return {
    address,
    port: typeof bound === "object" && bound !== null ? bound.port : port,
    vsockPort,
    start(connect) {
      relay = (socket) => void relayTo(socket, connect(vsockPort), counter);
      for (const socket of waiting.splice(0)) relay(socket);
    },
    close() {
      server.close();
      for (const socket of sockets) reset(socket);
    },
    traffic: () => counter.read(),
  };
}

function listen(server: Server, address: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", (error: NodeJS.ErrnoException) => {
    const taken = error.code === "EADDRINUSE";
    const message = `${address}:${port}: got ${error.code}, expected ${taken ? "a free port" : "to listen there"}`;
    const options = taken ? { fix: takenFix(port), cause: error } : { cause: error };
    reject(new CloisterError(taken ? "E_PORT_TAKEN" : "E_PORT_UNUSABLE", message, options));
  });
  server.listen(port, address, () => resolve());
  return promise;
}

function takenFix(port: number): string {
  return `Publish another port, or 0 for any free one; \`ss -ltnp 'sport = :${port}'\` shows who has it.`;
}

/** Relay once the enclave answers. */
async function relayTo(
  socket: Socket,
  connection: Promise<VsockStream>,
  counter: TrafficCounter,
): Promise<void> {
  let stream: VsockStream;
  try {
    stream = await connection;
  } catch {
    // ECONNRESET (nothing listens) or ETIMEDOUT in the enclave: the client sees its connection reset.
    counter.refuse();
    reset(socket);
    return;
  }
  relay(socket, stream);
}

/** Bytes both ways with backpressure; an end is passed on as an end, a broken connection as a reset. */
export function relay(socket: Socket, stream: VsockStream): void {
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
function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
