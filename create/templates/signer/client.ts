/**
 * Verify the enclave, have it sign, check the signature with the attested key:
 * `npx cloister node -- client.ts URL release.json MESSAGE [ROOT.pem]`
 */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fingerprint, policyFromBuild, verifyAttestation } from "cloister/verify";
import { ALGORITHM } from "./signer.ts";

const [url, release, message, root] = process.argv.slice(2);
if (url === undefined || release === undefined || message === undefined) {
  console.error("usage: client.ts URL release.json MESSAGE [ROOT.pem]");
  process.exit(2);
}

const nonce = crypto.getRandomValues(new Uint8Array(32));
const document = await ask(`/attest?nonce=${Buffer.from(nonce).toString("hex")}`);
const { document: attested } = await verifyAttestation(new Uint8Array(document), {
  policy: policyFromBuild(JSON.parse(await readFile(release, "utf8"))),
  nonce,
  // Only an emulated enclave needs another root than AWS's.
  ...(root !== undefined && { roots: [await fingerprint(new X509Certificate(await readFile(root)).raw)] }),
});
if (attested.publicKey === null) throw new Error("the document has no public key");
console.log(`verified: ${attested.moduleId} runs this release, and the key is its own`);

const signature = await ask("/sign", { method: "POST", body: message });
const key = await crypto.subtle.importKey("spki", Buffer.from(attested.publicKey), ALGORITHM, false, [
  "verify",
]);
const valid = await crypto.subtle.verify(ALGORITHM, key, signature, Buffer.from(message));
if (!valid) throw new Error("the signature is not the attested key's");
console.log(`signature: ${Buffer.from(signature).toString("base64url")}`);

async function ask(path: string, init?: RequestInit): Promise<ArrayBuffer> {
  const response = await fetch(new URL(path, url), init);
  if (response.ok) return response.arrayBuffer();
  throw new Error(`${path}: got status ${response.status}: ${await response.text()}`);
}
