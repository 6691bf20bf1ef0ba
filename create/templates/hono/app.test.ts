import assert from "node:assert/strict";
import { test } from "node:test";
import app from "./app.ts";

test("says hello", async () => {
  assert.deepEqual(await (await app.request("/")).json(), { hello: "from an enclave" });
  assert.equal(await (await app.request("/hello/ada")).text(), "hello, ada\n");
});

test("shouts", async () => {
  const response = await app.request("/shout", { method: "POST", body: "psst" });
  assert.equal(await response.text(), "PSST");
});

test("knows nothing else", async () => {
  assert.equal((await app.request("/nothing")).status, 404);
});
