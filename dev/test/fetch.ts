/** One request of fetch over a stream to an enclave, HTTP/1.1, with TLS where the app has it. */
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, request as startRequest } from "node:http";
import type { Socket } from "node:net";
import { type Duplex, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { connect as connectTls } from "node:tls";

/** Fetch standard, "null body status". */
const NO_BODY: readonly number[] = [101, 204, 205, 304];

/**
 * The response, as the enclave sends it: redirects are not followed, nothing is decoded. The stream is the request's own
 * and closes with it. Rejects with Node's errors of the connection.
 */
export async function fetchOver(stream: Duplex, request: Request, isTls: boolean): Promise<Response> {
  const socket = isTls ? await secure(stream) : stream;
  const { pathname, search, host } = new URL(request.url);
  const outgoing = startRequest({
    createConnection: () => socket as Socket,
    method: request.method,
    path: pathname + search,
    headers: { host, connection: "close", ...Object.fromEntries(request.headers) },
    signal: request.signal,
  });
  const answered = once(outgoing, "response") as Promise<[IncomingMessage]>;
  // What fails is told by the answer.
  send(outgoing, request).catch(() => {});
  const [incoming] = await answered;
  return toResponse(incoming, request.method);
}

/** The app's certificate is of its own making: what vouches for its key is its attestation document. */
async function secure(stream: Duplex): Promise<Duplex> {
  const socket = connectTls({
    socket: stream,
    ALPNProtocols: ["http/1.1"],
    minVersion: "TLSv1.3",
    rejectUnauthorized: false,
  });
  await once(socket, "secureConnect");
  return socket;
}

async function send(outgoing: ClientRequest, { body }: Request): Promise<void> {
  if (body === null) outgoing.end();
  else await pipeline(Readable.fromWeb(body as import("node:stream/web").ReadableStream), outgoing);
}

function toResponse(incoming: IncomingMessage, method: string): Response {
  const { statusCode: status = 0, statusMessage: statusText = "", rawHeaders } = incoming;
  const headers = new Headers();
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    headers.append(rawHeaders[index] ?? "", rawHeaders[index + 1] ?? "");
  }
  const isEmpty = method === "HEAD" || NO_BODY.includes(status);
  if (isEmpty) incoming.resume();
  const body = isEmpty ? null : (Readable.toWeb(incoming) as ReadableStream<Uint8Array>);
  return new Response(body, { status, statusText, headers });
}
