import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createEnclave } from "cloister/emulator";

// In a plain process, in no time. In a VM, as it is shipped: CLOISTER_TEST_MODE=vm npm test
const enclave = await createEnclave({ directory: import.meta.dirname });
after(() => enclave.terminate());

test("says hello", async () => {
  assert.deepEqual(await (await enclave.fetch("/")).json(), { hello: "from an enclave" });
});

test("shouts", async () => {
  const response = await enclave.fetch("/shout", { method: "POST", body: "psst" });
  assert.equal(await response.text(), "PSST");
});

test("knows nothing else", async () => {
  assert.equal((await enclave.fetch("/nothing")).status, 404);
});
