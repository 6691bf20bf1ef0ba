/** TLS that ends in the enclave: attested over the published port, whose every byte the parent carries. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { attestedFetch, createTlsClient, type TlsClient, type TlsOptions } from "../../client/node/index.ts";
import { fingerprint, readPolicy } from "../../format/verify.ts";
import { rejection } from "../format/vectors.ts";
import { type BuiltApp, buildApp, type Running, start } from "./enclave.ts";

const APP = `
import { createHash } from "node:crypto";
export default {
  async fetch(request: Request): Promise<Response> {
    const hash = createHash("sha256");
    for await (const chunk of request.body ?? []) hash.update(chunk);
    return Response.json({ url: request.url, sha256: hash.digest("hex") });
  },
};
`;

const folder = mkdtempSync(join(tmpdir(), "cloister-tls-"));
let app: BuiltApp;
let running: Running;
let url: string;
let options: TlsOptions;
let client: TlsClient;

beforeAll(async () => {
  app = await buildApp({ "app.ts": APP }, { memory: "256M", tls: true });
  running = await start(app.eifPath, { emulator: { nsm: { root: join(folder, "root") } } });
  await running.enclave.ready;
  url = running.url.replace("http:", "https:");
  const { PCR0, PCR1, PCR2 } = app.measurements;
  const policy = readPolicy({ PCR0, PCR1, PCR2 });
  options = { policy, roots: [await fingerprint(await running.attestationRoot())], attestDeadline: 60_000 };
  client = createTlsClient(url, options);
});

afterAll(async () => {
  client?.close();
  await running?.[Symbol.asyncDispose]();
  app?.remove();
  rmSync(folder, { recursive: true, force: true });
});

test("a request is answered by the app, which sees that it came encrypted", async () => {
  const response = await attestedFetch(`${url}/path`, options);
  expect(await response.json()).toMatchObject({ url: `${url}/path` });
});

test("16 MiB go up intact", async () => {
  const body = crypto.getRandomValues(new Uint8Array(65_536));
  const blob = new Blob(Array.from({ length: 256 }, () => body));
  const response = await client.fetch("/", { method: "POST", body: blob });
  const sha256 = createHash("sha256")
    .update(await blob.bytes())
    .digest("hex");
  expect(await response.json()).toMatchObject({ sha256 });
});

test("many at once share one attestation", async () => {
  const answers = await Promise.all(
    Array.from({ length: 10 }, async (_, i) => (await client.fetch(`/${i}`)).json()),
  );
  expect(answers).toEqual(
    Array.from({ length: 10 }, (_, i) => expect.objectContaining({ url: `${url}/${i}` })),
  );
});

test("the default policy's root refuses the emulator's", async () => {
  const { roots: _, ...aws } = options;
  expect(await rejection(attestedFetch(url, aws as TlsOptions))).toMatch(/^E_ATTESTATION_ROOT: /);
});

test("plain HTTP finds nobody there, and harms nobody", async () => {
  await expect(fetch(running.url)).rejects.toThrow();
  expect((await client.fetch("/")).status).toBe(200);
});

test("asked to stop, it ends, though connections are open", async () => {
  expect((await client.fetch("/", { method: "POST", body: "x".repeat(1 << 20) })).status).toBe(200);
  expect(await running.enclave.stop({ deadlineMs: 60_000 })).toMatchObject({ kind: "app", status: 0 });
});

test("an app that exports no fetch does not run without the TLS that it asked for", async () => {
  const plain = await buildApp({ "app.ts": "setInterval(() => {}, 1000);" }, { memory: "256M", tls: true });
  await using started = await start(plain.eifPath, { publish: [] });
  const ended = await started.enclave.exited;
  plain.remove();
  expect(ended).toMatchObject({ kind: "app", status: 1, reason: "load" });
  expect(started.logs().join("\n")).toContain('"tls" is true, and the app exports no fetch');
});

test("without attestation the runtime has no path of its own", async () => {
  const bare = await buildApp(
    {
      "app.ts":
        "export default { fetch: (request: Request) => new Response(new URL(request.url).pathname) };",
    },
    { memory: "256M", attestation: false },
  );
  await using started = await start(bare.eifPath);
  await started.enclave.ready;
  for (const path of ["/.well-known/attestation", "/.well-known/cloister/ohttp"]) {
    expect(await (await fetch(`${started.url}${path}`)).text()).toBe(path);
  }
  bare.remove();
});
