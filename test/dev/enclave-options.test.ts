/** What createEnclave refuses, and how one that does not get ready ends. No VM. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { createEnclave, type EnclaveOptions } from "../../dev/emulator.ts";
import { type Folder, makeProject } from "./app.ts";

let project: Folder;
beforeEach(() => {
  project = makeProject();
  // What is left behind is then this test's, whatever runs beside it.
  vi.stubEnv("TMPDIR", project.directory);
  return () => project[Symbol.dispose]();
});
afterEach(() => vi.unstubAllEnvs());

const create = (options: EnclaveOptions) =>
  createEnclave({ directory: project.directory, mode: "bare", ...options });
const folders = () => readdirSync(project.directory).filter((name) => /^cloister-(?!dev-test-)/.test(name));

describe("refused, with nothing left behind", () => {
  const answer = { fetch: () => new Response() };
  test.each<[string, EnclaveOptions, string]>([
    ["a bare image", { eif: "app.eif" }, 'mode: got "bare" for an eif, expected "vm"'],
    [
      "a mock that the list does not have",
      { egress: { mocks: { "a.test:443": answer } }, config: { egress: ["b.test:443"] } },
      'egress.mocks: got "a.test:443", expected one of egress: [b.test:443]; add "a.test:443"',
    ],
    [
      "a mock of no port",
      { egress: { mocks: { "a.test": answer } } },
      'egress.mocks: got "a.test", expected "host:port"',
    ],
    ["a mock of port 0", { egress: { mocks: { "a.test:0": answer } } }, "egress.mocks"],
    ["a mock of port 65536", { egress: { mocks: { "a.test:65536": answer } } }, "egress.mocks"],
    [
      "TLS for an image",
      { eif: "app.eif", mode: "vm", egress: { mocks: { "a.test:443": answer } } },
      "egress.mocks: got a mock with TLS for an eif",
    ],
    ["an instance that is none", { nsm: { instanceId: "x" } }, 'nsm.instanceId: got "x"'],
    ["an entry that is not there", { entry: "nowhere.ts" }, "nowhere.ts: found no file"],
    ["a configuration that is wrong", { config: { cpus: 0 } }, "cpus: got 0"],
  ])("%s", async (_, options, message) => {
    await expect(create(options)).rejects.toThrow(message);
    expect(folders()).toEqual([]);
  });

  test("a mode of the environment that is none", async () => {
    vi.stubEnv("CLOISTER_TEST_MODE", "container");
    await expect(createEnclave({ directory: project.directory })).rejects.toMatchObject({ code: "E_USAGE" });
  });

  test("an image that is not there, in a VM", async () => {
    const eif = join(project.directory, "none.eif");
    await expect(createEnclave({ eif })).rejects.toMatchObject({
      code: expect.stringMatching(/^E_EIF|^E_QEMU/),
    });
  });

  test("a signal that is aborted already", async () => {
    const signal = AbortSignal.abort(new Error("never mind"));
    await expect(create({ signal })).rejects.toThrow("never mind");
  });
});

async function started(source: string, options: EnclaveOptions = {}) {
  const own = makeProject({ "app.ts": source });
  onTestFinished(() => own[Symbol.dispose]());
  const enclave = await create({ directory: own.directory, ...options });
  onTestFinished(async () => void (await enclave.terminate()));
  return enclave;
}

test("the environment chooses the mode, and the caller before it", async () => {
  vi.stubEnv("CLOISTER_TEST_MODE", "bare");
  await using enclave = await createEnclave({ directory: project.directory });
  expect(enclave.mode).toBe("bare");
});

test("an app that fails at its start fails who asks it", async () => {
  const enclave = await started("throw new Error('early');");
  await expect(enclave.fetch("/")).rejects.toMatchObject({
    code: "E_APP_ENDED",
    details: expect.stringContaining("early"),
  });
  expect(await enclave.exited).toMatchObject({ kind: "app", status: 1, reason: "load" });
  expect(enclave.story()).toContain("stderr: Uncaught Error: early");
});

test("one that never serves ends when its time is over", async () => {
  const enclave = await started("setInterval(() => {}, 1000); export {};", { timeoutMs: 2_000 });
  await expect(enclave.ready).rejects.toMatchObject({ code: "E_NOT_READY" });
  expect(await enclave.exited).toEqual({ kind: "terminated" });
  expect(folders()).toEqual([]);
});

test("the caller's signal ends it", async () => {
  const aborter = new AbortController();
  const enclave = await started("export default { fetch: () => new Response() };", {
    signal: aborter.signal,
  });
  await enclave.ready;
  aborter.abort();
  expect(await enclave.exited).toEqual({ kind: "terminated" });
});

test("with TLS, by a name that clients see and a PROXY header that they do not", async () => {
  const source = "export default { fetch: (request) => new Response(new URL(request.url).protocol) };";
  const enclave = await started(source, { config: { tls: true, proxyProtocol: true } });
  expect(await (await enclave.fetch("/")).text()).toBe("https:");
});

test("registers of the parent, and other registers for another app", async () => {
  const role = { roleArn: "arn:aws:iam::123456789012:role/x", instanceId: "i-1" };
  const one = await started("export default { fetch: () => new Response('1') };", { nsm: role });
  const two = await started("export default { fetch: () => new Response('2') };");
  expect(one.measurements.PCR1).toBe(two.measurements.PCR1);
  expect(one.measurements.PCR0).not.toBe(two.measurements.PCR0);
  expect(one.measurements.PCR2).not.toBe(two.measurements.PCR2);
});
