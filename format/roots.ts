/**
 * Root certificates, named by the SHA-256 of their DER. Source: AWS Nitro Enclaves user guide, "Verifying the root of
 * trust", which publishes the same number for AWS_NitroEnclaves_Root-G1.
 */
import { toHex } from "./struct.ts";

/** CN=aws.nitro-enclaves, P-384, valid from 2019-10-28 to 2049-10-28. */
export const AWS_ROOT_G1 = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";

/** SHA-256 of a certificate's DER, 64 lower-case hexadecimal digits: what `roots` lists. */
export async function fingerprint(certificate: Uint8Array): Promise<string> {
  return toHex(new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", new Uint8Array(certificate))));
}
