/** The URL of an enclave on the command line, and what its endpoint answers. */
import { DEADLINE_MS, fetchAttestation } from "../client/endpoint.ts";
import { Connection } from "../client/node/connection.ts";
import { ATTESTATION_PATH } from "../format/attestation.ts";
import { decodeBinding, isBinding } from "../format/binding.ts";
import { CloisterError, quote } from "../format/failure.ts";
import { toHex } from "../format/struct.ts";

/** The attestation endpoint of an enclave's base URL. Throws E_USAGE for anything but a scheme, a host and a port. */
export function endpointOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain = url !== undefined && ["/", ATTESTATION_PATH].includes(url.pathname);
  if (!plain || url.search !== "" || url.hash !== "" || url.username !== "") {
    throw new CloisterError("E_USAGE", `got ${quote(text)}, expected a URL such as https://enclave.example`);
  }
  return new URL(ATTESTATION_PATH, url);
}

export interface Asked {
  /** The document, unverified. */
  readonly bytes: Uint8Array;
  /** Over https: SHA-256 of the server's key, hexadecimal. */
  readonly tlsKey?: string;
}

/**
 * Ask for a document. Over https whoever has which certificate is not judged: the document is signed by itself. Throws
 * E_ATTESTATION_FETCH or E_CONNECTION.
 */
export async function askEndpoint(endpoint: URL, nonce: Uint8Array, signal: AbortSignal): Promise<Asked> {
  if (endpoint.protocol === "http:") return { bytes: await fetchAttestation(endpoint, nonce, { signal }) };
  const connection = await Connection.open({ base: endpoint, signal, deadline: DEADLINE_MS });
  try {
    const fetch = (url: URL, init: RequestInit) => connection.request(new Request(url, init), () => {});
    return { bytes: await fetchAttestation(endpoint, nonce, { signal, fetch }), tlsKey: connection.keyHash };
  } finally {
    connection.close();
  }
}

/** Where TLS ends, by what a verified document has in its user data. */
export function tlsEnd(userData: Uint8Array | null, tlsKey: string): "enclave" | "elsewhere" {
  const isOurs = userData !== null && isBinding(userData);
  const bound = isOurs ? decodeBinding(userData).tlsKey : null;
  return bound !== null && toHex(bound) === tlsKey ? "enclave" : "elsewhere";
}
