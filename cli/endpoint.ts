/** Ask an enclave for an attestation document over HTTP. What answers may be anyone: time and size are limited. */
import { ATTESTATION_PATH, ATTESTATION_TYPE, DOCUMENT_MAX } from "../format/attestation.ts";
import { CloisterError, mismatch, quote } from "../format/failure.ts";
import { toHex } from "../format/struct.ts";

/** For the whole answer, milliseconds. */
const DEADLINE_MS = 10_000;

/** The endpoint of an enclave's base URL. Throws E_USAGE for anything but a scheme, a host and a port. */
export function endpointOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain = url !== undefined && ["/", ATTESTATION_PATH].includes(url.pathname);
  if (!plain || url.search !== "" || url.hash !== "" || url.username !== "") {
    throw new CloisterError("E_USAGE", `got ${quote(text)}, expected a URL such as https://enclave.example`);
  }
  return new URL(ATTESTATION_PATH, url);
}

/** The body, unverified. Throws E_ATTESTATION_FETCH. `deadline`: milliseconds. */
export async function fetchAttestation(
  endpoint: URL,
  nonce: Uint8Array,
  signal: AbortSignal,
  deadline = DEADLINE_MS,
): Promise<Uint8Array> {
  const url = new URL(endpoint);
  url.searchParams.set("nonce", toHex(nonce));
  const timeout = AbortSignal.timeout(deadline);
  try {
    const response = await fetch(url, {
      // A document from elsewhere than asked for would verify just as well, but not say where it is from.
      redirect: "error",
      headers: { accept: ATTESTATION_TYPE, "accept-encoding": "identity" },
      signal: AbortSignal.any([signal, timeout]),
    });
    return await readBody(endpoint, response);
  } catch (error) {
    if (error instanceof CloisterError) throw error;
    if (!timeout.aborted) throw wrong(endpoint, reasonOf(error as Error), "an answer");
    throw wrong(endpoint, "no whole answer", `one within ${deadline / 1000} s`);
  }
}

async function readBody(endpoint: URL, response: Response): Promise<Uint8Array> {
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
    await body?.cancel();
    throw refused;
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body ?? []) {
    size += chunk.length;
    // Leaving the loop cancels the body.
    if (size > DOCUMENT_MAX) throw wrong(endpoint, `more than ${DOCUMENT_MAX} bytes`, "at most as many");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** fetch says "fetch failed" and keeps the reason in its cause. */
function reasonOf(error: Error): string {
  const cause = error.cause as NodeJS.ErrnoException | undefined;
  return cause?.code ?? quote(cause?.message ?? error.message);
}

function wrong(endpoint: URL, got: string, expected: string): CloisterError {
  return mismatch("E_ATTESTATION_FETCH", endpoint.href, got, expected);
}
