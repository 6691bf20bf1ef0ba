/** An HTTP request as a fetch `Request`, and a fetch `Response` as the answer to one. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { TLSSocket } from "node:tls";

/** RFC 9110 §7.2: host and port, and nothing that would move the rest of the URL. */
export const HOST = /^[A-Za-z0-9.\-_~%:[\]]+$/;

export interface Received {
  readonly request: Request;
  /** The answer is complete: whatever of the body was not read is dropped, so that the next request can come. */
  readonly discard: () => void;
}

/**
 * The URL says https if the connection ended TLS here, and http if not, whatever the request says of itself: an app may
 * go by it. undefined: a request that has no `Request`: a hostile Host or target, or a method that fetch forbids (TRACE).
 */
export function toRequest(incoming: IncomingMessage, signal: AbortSignal): Received | undefined {
  const { method = "GET", url = "/", headers, rawHeaders } = incoming;
  const host = headers.host || "localhost";
  if (!HOST.test(host)) return undefined;
  const scheme = (incoming.socket as Partial<TLSSocket>).encrypted === true ? "https" : "http";
  const target = url.startsWith("/") ? `${scheme}://${host}${url}` : url.replace(/^https?(?=:\/\/)/i, scheme);
  const pairs: [string, string][] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) pairs.push([rawHeaders[i] ?? "", rawHeaders[i + 1] ?? ""]);
  const init = { method, headers: pairs, signal };
  try {
    // fetch allows these no body; Node drops one that comes all the same.
    if (method === "GET" || method === "HEAD")
      return { request: new Request(target, init), discard: () => {} };
    const { stream, discard } = bodyOf(incoming);
    const streamed = { ...init, body: stream, duplex: "half" } as RequestInit;
    return { request: new Request(target, streamed), discard };
  } catch {
    // TypeError: not a URL, a forbidden method.
    return undefined;
  }
}

/** Reads only what the app asks for: its pace is the sender's. */
function bodyOf(incoming: IncomingMessage): { stream: ReadableStream<Uint8Array>; discard: () => void } {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const onData = (chunk: Uint8Array) => {
    incoming.pause();
    controller?.enqueue(chunk);
  };
  const onEnd = () => controller?.close();
  // Let the rest pass unseen.
  const drop = () => void incoming.off("data", onData).off("end", onEnd).resume();
  const stream = new ReadableStream<Uint8Array>(
    {
      start(started) {
        controller = started;
        incoming.pause();
        incoming.on("data", onData).on("end", onEnd);
        incoming.once("error", (error) => started.error(error));
      },
      pull: () => void incoming.resume(),
      cancel: drop,
    },
    { highWaterMark: 0 },
  );
  const discard = () => {
    drop();
    // An app that still reads must not take this for the end. No effect on a body that was read to its end.
    controller?.error(new Error("request body: dropped, for the response is complete"));
  };
  return { stream, discard };
}

/**
 * Send a response, no faster than the client reads. Rejects where the app's body fails, or does not have the length its
 * `content-length` says: then what was sent is not the response, and the connection must end.
 */
export async function send(response: Response, outgoing: ServerResponse): Promise<void> {
  const reader = response.body?.getReader();
  // Lets the app's stream go where it is not read to its end. It may fail at that, which changes nothing here.
  const cancel = () => void reader?.cancel().catch(() => {});
  outgoing.once("close", cancel);
  try {
    writeHead(response, outgoing);
    if (reader !== undefined && outgoing.req.method !== "HEAD") await pump(reader, outgoing);
    outgoing.end();
  } finally {
    cancel();
  }
}

function writeHead(response: Response, outgoing: ServerResponse): void {
  outgoing.strictContentLength = true;
  // Name, value, name, value: the one form in which Set-Cookie may come several times.
  const headers = [...response.headers].flat();
  if (response.statusText === "") outgoing.writeHead(response.status, headers);
  else outgoing.writeHead(response.status, response.statusText, headers);
}

async function pump(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  outgoing: ServerResponse,
): Promise<void> {
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    if (!(value instanceof Uint8Array))
      throw new TypeError(`response body: got ${typeof value}, expected bytes`);
    if (!outgoing.write(value)) await drained(outgoing);
  }
}

/** Until the client has read on, or is gone. */
function drained(outgoing: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => {
    outgoing.off("drain", done).off("close", done);
    resolve();
  };
  outgoing.on("drain", done).on("close", done);
  return promise;
}
