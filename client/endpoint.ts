/** Ask an enclave for an attestation document over HTTP. What answers may be anyone: time and size are limited. */
import { ATTESTATION_PATH, ATTESTATION_TYPE, DOCUMENT_MAX } from "../format/attestation.ts";
import { CloisterError, mismatch, quote } from "../format/failure.ts";
import { readAtMost } from "../format/stream.ts";
import { toHex } from "../format/struct.ts";

/** For the whole answer, milliseconds. */
export const DEADLINE_MS = 10_000;

export type Fetch = (url: URL, init: RequestInit) => Promise<Response>;

export interface EndpointOptions {
  readonly signal?: AbortSignal | undefined;
  /** For the whole answer, milliseconds; default: 10 s. */
  readonly deadline?: number | undefined;
  /** Default: the platform's. */
  readonly fetch?: Fetch;
}

/** The body, unverified. `base`: scheme, host and port. Throws E_ATTESTATION_FETCH, for an aborted signal too. */
export async function fetchAttestation(
  base: URL,
  nonce: Uint8Array,
  { signal, deadline = DEADLINE_MS, fetch = globalThis.fetch }: EndpointOptions = {},
): Promise<Uint8Array> {
  const endpoint = new URL(ATTESTATION_PATH, base);
  const url = new URL(endpoint);
  url.searchParams.set("nonce", toHex(nonce));
  const timeout = AbortSignal.timeout(deadline);
  try {
    const response = await fetch(url, {
      // A document from elsewhere than asked for would verify just as well, but not say where it is from.
      redirect: "error",
      credentials: "omit",
      cache: "no-store",
      headers: { accept: ATTESTATION_TYPE, "accept-encoding": "identity" },
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    });
    return await readDocument(endpoint, response);
  } catch (error) {
    if (error instanceof CloisterError) throw error;
    if (!timeout.aborted) throw wrong(endpoint, reasonOf(error), "an answer");
    throw wrong(endpoint, "no whole answer", `one within ${deadline / 1000} s`);
  }
}

async function readDocument(endpoint: URL, response: Response): Promise<Uint8Array> {
  const { status, headers, body } = response;
  const type = headers.get("content-type") ?? "";
  const essence = type.split(";")[0]?.trim().toLowerCase() ?? "";
  const refused =
    status !== 200
      ? wrong(endpoint, `status ${status}`, "200")
      : essence !== ATTESTATION_TYPE
        ? wrong(endpoint, `content type ${quote(type)}`, ATTESTATION_TYPE)
        : undefined;
  if (refused !== undefined) {
    // It may never end, and is of no interest.
    body?.cancel().catch(() => {});
    throw refused;
  }
  const bytes = await readAtMost(body, DOCUMENT_MAX);
  if (bytes !== undefined) return bytes;
  throw wrong(endpoint, `more than ${DOCUMENT_MAX} bytes`, "at most as many");
}

/** Node's fetch says "fetch failed" and keeps the reason in its cause; a browser's tells no reason. */
export function reasonOf(error: unknown): string {
  const { cause, message } = error as Error & { readonly cause?: { code?: string; message?: string } };
  return cause?.code ?? quote(cause?.message ?? message);
}

function wrong(endpoint: URL, got: string, expected: string): CloisterError {
  return mismatch("E_ATTESTATION_FETCH", endpoint.href, got, expected);
}
