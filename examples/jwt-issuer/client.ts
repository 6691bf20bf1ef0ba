/**
 * Check that the issuer's keys were born in the enclave, get a token, verify it as an API would:
 * `npx cloister node -- client.ts URL release.json CLIENT SECRET [ROOT.pem]`
 */
import { createHash, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createClient, fingerprint, policyFromBuild } from "cloister/client";
import { verifyAttestation } from "cloister/verify";
import { createLocalJWKSet, jwtVerify } from "jose";

const [url, release, client, secret, root] = process.argv.slice(2);
if (url === undefined || release === undefined || client === undefined || secret === undefined) {
  console.error("usage: client.ts URL release.json CLIENT SECRET [ROOT.pem]");
  process.exit(2);
}
const policy = policyFromBuild(JSON.parse(await readFile(release, "utf8")));
// Only an emulated enclave needs another root than AWS's.
const roots =
  root === undefined ? {} : { roots: [await fingerprint(new X509Certificate(await readFile(root)).raw)] };

const nonce = crypto.getRandomValues(new Uint8Array(32));
const keys = await (await ask("/.well-known/jwks.json")).text();
const document = await (await ask(`/jwks-attestation?nonce=${Buffer.from(nonce).toString("hex")}`)).bytes();
const userData = createHash("sha256").update(keys).digest();
await verifyAttestation(document, { policy, nonce, userData, ...roots });
console.log("verified: these keys are the enclave's own");

const issuer = createClient(url, { policy, ...roots });
const body = new URLSearchParams({
  grant_type: "client_credentials",
  client_id: client,
  client_secret: secret,
});
const response = await issuer.fetch("/token", { method: "POST", body });
const answer = (await response.json()) as { access_token?: string; error_description?: string };
if (answer.access_token === undefined) throw new Error(`/token: got ${answer.error_description}`);
const { payload } = await jwtVerify(answer.access_token, createLocalJWKSet(JSON.parse(keys)), {
  issuer: "https://issuer.example",
  audience: "https://api.example",
});
console.log(`a token for ${payload.sub}, good until ${new Date((payload.exp ?? 0) * 1000).toISOString()}`);

async function ask(path: string): Promise<Response> {
  const found = await fetch(new URL(path, url));
  if (found.ok) return found;
  throw new Error(`${path}: got status ${found.status}: ${await found.text()}`);
}
