/**
 * Upload a set, wait for the other party's, print what both have:
 * `npx cloister node -- client.ts URL release.json SESSION FILE [ROOT.pem]`
 */
import { randomBytes, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient, fingerprint, policyFromBuild } from "cloister/client";

const [url, release, session, file, root] = process.argv.slice(2);
if (url === undefined || release === undefined || session === undefined || file === undefined) {
  console.error("usage: client.ts URL release.json SESSION FILE [ROOT.pem]");
  process.exit(2);
}
const enclave = createClient(url, {
  policy: policyFromBuild(JSON.parse(await readFile(release, "utf8"))),
  // Only an emulated enclave needs another root than AWS's.
  ...(root !== undefined && { roots: [await fingerprint(new X509Certificate(await readFile(root)).raw)] }),
});
const headers = { authorization: `Bearer ${randomBytes(32).toString("base64url")}` };
const path = `/sessions/${session}`;

const uploaded = await enclave.fetch(path, { method: "POST", headers, body: await readFile(file, "utf8") });
if (!uploaded.ok) throw new Error(`${path}: got status ${uploaded.status}: ${await uploaded.text()}`);
for (;;) {
  const response = await enclave.fetch(path, { headers });
  if (response.ok) {
    for (const element of (await response.json()) as string[]) console.log(element);
    break;
  }
  // 409: the other party's set is missing.
  if (response.status !== 409)
    throw new Error(`${path}: got status ${response.status}: ${await response.text()}`);
  await sleep(1000);
}
