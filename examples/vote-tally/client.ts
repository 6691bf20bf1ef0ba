/**
 * Vote, or check the result:
 * `npx cloister node -- client.ts URL release.json vote TOKEN CHOICE [ROOT.pem]`
 * `npx cloister node -- client.ts URL release.json result [ROOT.pem]`
 */
import { createHash, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createClient, fingerprint, policyFromBuild } from "cloister/client";
import { verifyAttestation } from "cloister/verify";

const [url, release, verb, ...rest] = process.argv.slice(2);
if (url === undefined || release === undefined || (verb !== "vote" && verb !== "result")) {
  console.error("usage: client.ts URL release.json vote TOKEN CHOICE [ROOT.pem] | result [ROOT.pem]");
  process.exit(2);
}
const policy = policyFromBuild(JSON.parse(await readFile(release, "utf8")));
const root = rest[verb === "vote" ? 2 : 0];
// Only an emulated enclave needs another root than AWS's.
const roots =
  root === undefined ? {} : { roots: [await fingerprint(new X509Certificate(await readFile(root)).raw)] };

if (verb === "vote") {
  const [token, choice] = rest;
  const poll = createClient(url, { policy, ...roots });
  const response = await poll.fetch("/vote", { method: "POST", body: JSON.stringify({ token, choice }) });
  console.log(await response.text());
  process.exitCode = response.ok ? 0 : 1;
} else {
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  const response = await fetch(new URL(`/result?nonce=${Buffer.from(nonce).toString("hex")}`, url));
  if (!response.ok) throw new Error(`/result: got status ${response.status}: ${await response.text()}`);
  const { result, document } = (await response.json()) as { result: string; document: string };
  const userData = createHash("sha256").update(result).digest();
  await verifyAttestation(Buffer.from(document, "base64"), { policy, nonce, userData, ...roots });
  console.log(`verified: ${result}`);
}
