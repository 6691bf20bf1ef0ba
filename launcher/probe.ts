/**
 * The HTTP server of `--health-port`: whether the enclave lives, whether it can take requests, and metrics. What it says is
 * made when it is asked, of what the supervisor knows already: nobody waits for the enclave.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type HealthReport, healthText } from "./health.ts";
import { type Bound, listenAt, type TcpPlace } from "./listener.ts";
import { METRICS_TYPE } from "./metrics.ts";

export interface ProbeSource {
  report(): HealthReport;
  /** In Prometheus' text format. */
  metrics(): string;
}

/** Whoever probes sends a line or two at once: more than that, or slower, is no probe. */
const LIMITS = {
  maxHeaderSize: 8 * 1024,
  requestTimeout: 5_000,
  connectionsCheckingInterval: 1_000,
} as const;
const CONNECTIONS_MAX = 64;

export interface ProbeServer extends Bound, AsyncDisposable {}

/** Rejects with E_PORT_TAKEN or E_PORT_UNUSABLE. */
export async function serveProbes(place: TcpPlace, source: ProbeSource): Promise<ProbeServer> {
  const server = createServer(LIMITS, (request, response) => answer(request, response, source));
  server.maxConnections = CONNECTIONS_MAX;
  const bound = await listenAt(server, place);
  return {
    ...bound,
    [Symbol.asyncDispose]: () => close(server),
  };
}

function close(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  server.closeAllConnections();
  return promise;
}

function answer(request: IncomingMessage, response: ServerResponse, source: ProbeSource): void {
  // One request a connection: a client cannot hold one of the few, nor send a body that nobody reads.
  response.shouldKeepAlive = false;
  const { status, type = "text/plain; charset=utf-8", body, allow } = respond(request, source);
  response.writeHead(status, {
    "content-type": type,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...(allow !== undefined && { allow }),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

interface Answer {
  readonly status: number;
  readonly type?: string;
  readonly allow?: string;
  readonly body: string;
}

function respond({ method, url = "" }: IncomingMessage, source: ProbeSource): Answer {
  if (method !== "GET" && method !== "HEAD")
    return { status: 405, allow: "GET, HEAD", body: "GET or HEAD only\n" };
  const [path] = url.split("?");
  switch (path) {
    case "/healthz":
      return probe(source.report(), "alive");
    case "/readyz":
      return probe(source.report(), "ready");
    case "/metrics":
      return { status: 200, type: METRICS_TYPE, body: source.metrics() };
    default:
      return { status: 404, body: "/healthz, /readyz or /metrics\n" };
  }
}

function probe(report: HealthReport, question: "alive" | "ready"): Answer {
  return { status: report[question] ? 200 : 503, body: `${healthText(report)}\n` };
}
