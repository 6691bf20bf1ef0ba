/** A default-exported `{ fetch }` as an HTTP/1.1 server on a vsock port. */
import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { acceptInto } from "./listen.ts";
import { send, toRequest } from "./request.ts";
import type { Listen } from "./vsock.ts";

/** What an app default-exports: the handler of Workers, Bun, Deno and Hono. */
export interface FetchApp {
  fetch(request: Request): Response | Promise<Response>;
  /** A request to upgrade, for `ws`: `webSocketServer.handleUpgrade(request, socket, head, …)`. */
  upgrade?(request: IncomingMessage, socket: Duplex, head: Buffer): void | Promise<void>;
}

export function isFetchApp(value: unknown): value is FetchApp {
  return typeof (value as FetchApp | null | undefined)?.fetch === "function";
}

export interface ServeOptions {
  /** Vsock port. */
  readonly port: number;
  /** Errors of the app: its log, never its clients, sees them. */
  readonly onError: (error: unknown) => void;
  /** Serve with TLS 1.3; PEM. Left out: without. */
  readonly tls?: { readonly key: string; readonly cert: string } | undefined;
  readonly listen: Listen;
}

export interface Served {
  /** Accept no more; resolves when every request in flight has been answered. */
  close(): Promise<void>;
}

/** Serve the app. Throws EADDRINUSE. */
export function serveFetch(app: FetchApp, options: ServeOptions): Served {
  const { port, onError, tls, listen } = options;
  const server = createFetchServer(app, onError, tls);
  // Loads undici, which takes as long: ready means that the first request is as fast as the next.
  void globalThis.Request;
  const listener = listen({ port, onError }, (socket) => acceptInto(server, socket));
  // Starts the timers that end slow and idle connections.
  server.emit("listening");
  let closing = false;
  server.on("request", (_, outgoing) => {
    outgoing.once("close", () => closing && server.closeIdleConnections());
  });
  return {
    async close() {
      closing = true;
      const { promise, resolve } = Promise.withResolvers<void>();
      listener.close();
      server.once("close", resolve);
      // Closes the idle connections too; the busy ones follow when they have answered.
      server.close();
      await promise;
    },
  };
}

/** Nothing older, and so no renegotiation; who does not finish the handshake holds nothing for long (milliseconds). */
const TLS = { minVersion: "TLSv1.3", ALPNProtocols: ["http/1.1"], handshakeTimeout: 20_000 } as const;

/** An HTTP server, not listening, that answers with the app. */
export function createFetchServer(
  app: FetchApp,
  onError: (error: unknown) => void,
  tls?: ServeOptions["tls"],
): Server {
  // Here, because a program with a server of its own need not wait for it; and not with import(), which evaluates the
  // lazy exports too and loads undici for its WebSocket: 50 ms on hardware, a second under emulation.
  const listener: RequestListener = (incoming, outgoing) => void answer(app, incoming, outgoing, onError);
  const server =
    tls === undefined
      ? process.getBuiltinModule("node:http").createServer(listener)
      : process.getBuiltinModule("node:https").createServer({ ...tls, ...TLS }, listener);
  // A client that ended its request's stream still wants the answer. Missing from the types; Node's is false.
  (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  if (app.upgrade) server.on("upgrade", upgradeWith(app.upgrade.bind(app), onError));
  return server;
}

function upgradeWith(upgrade: NonNullable<FetchApp["upgrade"]>, onError: (error: unknown) => void) {
  return async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Without a listener a client's reset would be an uncaught exception.
    socket.on("error", () => {});
    try {
      await upgrade(request, socket, head);
    } catch (error) {
      socket.destroy();
      onError(error);
    }
  };
}

/** Answer one request. Never rejects. */
async function answer(
  app: FetchApp,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  onError: (error: unknown) => void,
): Promise<void> {
  const aborter = new AbortController();
  const abort = () => aborter.abort();
  // Whether a client that ended its side left or still listens shows only when it is written to. So the app is told, as
  // by Go's net/http, and what it answers all the same is sent.
  incoming.socket.once("end", abort);
  outgoing.once("close", () => {
    incoming.socket.off("end", abort);
    if (!outgoing.writableFinished) abort();
  });
  const received = toRequest(incoming, aborter.signal);
  if (received === undefined) {
    refuse(outgoing, 400, "Bad Request");
    return;
  }
  try {
    const response = await app.fetch(received.request);
    if (!(response instanceof Response)) {
      throw new TypeError(`fetch handler: got ${typeof response}, expected a Response`);
    }
    await send(response, outgoing);
  } catch (error) {
    // What fails because the client left is no error of the app.
    if (!outgoing.destroyed && error !== aborter.signal.reason) onError(error);
    if (outgoing.headersSent) outgoing.destroy();
    else refuse(outgoing, 500, "Internal Server Error");
  }
  received.discard();
}

function refuse(outgoing: ServerResponse, status: number, text: string): void {
  // The text as the status line too: an answer that failed may have left its own there.
  outgoing.writeHead(status, text, { "content-type": "text/plain", "content-length": text.length });
  outgoing.end(text);
}
