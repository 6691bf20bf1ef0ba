import assert from "node:assert/strict";
import { test } from "node:test";
import app from "./app.ts";

const fetch = (path: string, init?: RequestInit) => app.fetch(new Request(`http://enclave${path}`, init));

test("says hello", async () => {
  assert.deepEqual(await (await fetch("/")).json(), { hello: "from an enclave" });
});

test("shouts", async () => {
  const response = await fetch("/shout", { method: "POST", body: "psst" });
  assert.equal(await response.text(), "PSST");
});

test("knows nothing else", async () => {
  assert.equal((await fetch("/shout")).status, 404);
});
