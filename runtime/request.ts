/** An HTTP request as a fetch `Request`, and a fetch `Response` as the answer to one. */
import type { IncomingMessage, ServerResponse } from "node:http";

/** RFC 9110 §7.2: host and port, and nothing that would move the rest of the URL. */
const HOST = /^[A-Za-z0-9.\-_~%:[\]]+$/;

/** undefined: a request that has no `Request`: a hostile Host or target, or a method that fetch forbids (TRACE). */
export function toRequest(incoming: IncomingMessage, signal: AbortSignal): Request | undefined {
  const { method = "GET", url = "/", headers, rawHeaders } = incoming;
  const host = headers.host || "localhost";
  if (!HOST.test(host)) return undefined;
  const target = url.startsWith("/") ? `http://${host}${url}` : url;
  const hasBody = method !== "GET" && method !== "HEAD";
  const pairs: [string, string][] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) pairs.push([rawHeaders[i] ?? "", rawHeaders[i + 1] ?? ""]);
  try {
    return new Request(target, {
      method,
      headers: pairs,
      signal,
      ...(hasBody && { body: bodyOf(incoming), duplex: "half" }),
    } as RequestInit);
  } catch {
    // TypeError: not a URL, a forbidden method.
    return undefined;
  }
}

/** Reads only what the app asks for: its pace is the sender's. */
function bodyOf(incoming: IncomingMessage): ReadableStream<Uint8Array> {
  let chunks: AsyncIterator<Uint8Array> | undefined;
  return new ReadableStream(
    {
      async pull(controller) {
        chunks ??= incoming.iterator({ destroyOnReturn: false }) as AsyncIterator<Uint8Array>;
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
    },
    { highWaterMark: 0 },
  );
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
