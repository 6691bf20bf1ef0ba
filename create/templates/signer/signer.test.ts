import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createEnclave } from "cloister/emulator";
import { verifyAttestation } from "cloister/verify";
import { ALGORITHM } from "./signer.ts";

// In a plain process, in no time. In a VM, as it is shipped: CLOISTER_TEST_MODE=vm npm test
const enclave = await createEnclave({ directory: import.meta.dirname });
after(() => enclave.terminate());

const nonce = crypto.getRandomValues(new Uint8Array(32));
const attest = (query: string) => enclave.fetch(`/attest?nonce=${query}`);
const sign = (body: string) => enclave.fetch("/sign", { method: "POST", body });

test("what it signs is by the key that it has attested", async () => {
  const document = await (await attest(Buffer.from(nonce).toString("hex"))).bytes();
  const { document: attested } = await verifyAttestation(document, { ...(await enclave.trust()), nonce });
  const spki = Buffer.from(attested.publicKey ?? []);
  const key = await crypto.subtle.importKey("spki", spki, ALGORITHM, false, ["verify"]);
  const signature = await (await sign("message")).arrayBuffer();
  assert.ok(await crypto.subtle.verify(ALGORITHM, key, signature, Buffer.from("message")));
  assert.ok(!(await crypto.subtle.verify(ALGORITHM, key, signature, Buffer.from("another"))));
});

test("refuses what it cannot attest or sign", async () => {
  assert.equal((await attest("short")).status, 400);
  assert.equal((await sign("x".repeat(100_000))).status, 400);
  assert.equal((await enclave.fetch("/nothing")).status, 404);
});
