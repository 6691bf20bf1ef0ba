import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { createApp } from "./app.ts";

const server = createApp().listen(0, "127.0.0.1");
let url = "";

before(async () => {
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => server.close());

test("says hello", async () => {
  assert.deepEqual(await (await fetch(url)).json(), { hello: "from an enclave" });
});

test("shouts", async () => {
  const response = await fetch(`${url}/shout`, { method: "POST", body: "psst" });
  assert.equal(await response.text(), "PSST");
});

test("knows nothing else", async () => {
  assert.equal((await fetch(`${url}/nothing`)).status, 404);
});
