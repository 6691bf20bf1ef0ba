/** The URL of an enclave on the command line. */
import { ATTESTATION_PATH } from "../format/attestation.ts";
import { CloisterError, quote } from "../format/failure.ts";

/** The attestation endpoint of an enclave's base URL. Throws E_USAGE for anything but a scheme, a host and a port. */
export function endpointOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain = url !== undefined && ["/", ATTESTATION_PATH].includes(url.pathname);
  if (!plain || url.search !== "" || url.hash !== "" || url.username !== "") {
    throw new CloisterError("E_USAGE", `got ${quote(text)}, expected a URL such as https://enclave.example`);
  }
  return new URL(ATTESTATION_PATH, url);
}
