/** Answers of what the runtime itself serves below /.well-known/. */

/**
 * Pages of any origin may ask: a document is public, and an encrypted request has nothing of the browser's own in it, no
 * cookie and no client certificate. A document is good once.
 */
const HEADERS = {
  "access-control-allow-origin": "*",
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
} as const;

export function answerBytes(type: string, body: Uint8Array): Response {
  return new Response(new Uint8Array(body), { headers: { ...HEADERS, "content-type": type } });
}

export function answerText(
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(`${text}\n`, {
    status,
    headers: { ...HEADERS, "content-type": "text/plain", ...headers },
  });
}

/** RFC 9457 §3. */
export function answerProblem(status: number, type: string, title: string): Response {
  return new Response(JSON.stringify({ type, title }), {
    status,
    headers: { ...HEADERS, "content-type": "application/problem+json" },
  });
}

/** Fetch standard, "CORS-preflight request"; its answer may be kept for two hours. */
export function answerPreflight(method: string): Response {
  return new Response(null, {
    status: 204,
    headers: {
      ...HEADERS,
      "access-control-allow-methods": method,
      "access-control-allow-headers": "content-type",
      "access-control-max-age": "7200",
    },
  });
}
