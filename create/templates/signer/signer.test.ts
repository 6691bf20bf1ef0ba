import assert from "node:assert/strict";
import { test } from "node:test";
import type { AttestOptions } from "cloister/runtime";
import { ALGORITHM, createSigner } from "./signer.ts";

/** Stands in for the hypervisor: the key as it was to be attested. */
let attested: AttestOptions = {};
const signer = await createSigner(async (options) => {
  attested = options;
  return new Uint8Array([1, 2, 3]);
});
const fetch = (path: string, init?: RequestInit) => signer.fetch(new Request(`http://enclave${path}`, init));

test("what it signs is by the key that it has attested", async () => {
  const document = await fetch(`/attest?nonce=${"00".repeat(16)}`);
  assert.deepEqual(new Uint8Array(await document.arrayBuffer()), new Uint8Array([1, 2, 3]));
  assert.equal(attested.nonce?.length, 16);
  const spki = Buffer.from(attested.publicKey ?? []);
  const key = await crypto.subtle.importKey("spki", spki, ALGORITHM, false, ["verify"]);
  const signature = await (await fetch("/sign", { method: "POST", body: "message" })).arrayBuffer();
  assert.ok(await crypto.subtle.verify(ALGORITHM, key, signature, Buffer.from("message")));
  assert.ok(!(await crypto.subtle.verify(ALGORITHM, key, signature, Buffer.from("another"))));
});

test("refuses what it cannot attest or sign", async () => {
  assert.equal((await fetch("/attest?nonce=short")).status, 400);
  assert.equal((await fetch("/sign", { method: "POST", body: "x".repeat(100_000) })).status, 400);
  assert.equal((await fetch("/nothing")).status, 404);
});
