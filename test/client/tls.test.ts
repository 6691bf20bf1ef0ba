/** attestedFetch and createTlsClient against the runtime's own server, and against what lies between. */
import { createServer as createHttps } from "node:https";
import { connect, createServer, type Server } from "node:net";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { attestedFetch, createTlsClient } from "../../client/node/index.ts";
import { ATTESTATION_CONTENT_TYPE } from "../../format/attestation.ts";
import { createTlsIdentity } from "../../runtime/identity.ts";
import type { FetchApp } from "../../runtime/serve.ts";
import { type Chain, signed } from "../format/authority.ts";
import { rejection } from "../format/vectors.ts";
import { accepting, chainOfNow, close, listen, startEnclave } from "./enclave.ts";

let chain: Chain;
beforeAll(async () => {
  chain = await chainOfNow();
});

const echo: FetchApp = {
  async fetch(request) {
    const body = `${request.method} ${request.url} ${request.headers.get("x-a")} ${await request.text()}`;
    return new Response(body, { status: 201, statusText: "Made", headers: { "x-b": "2" } });
  },
};

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of undo.splice(0).reverse()) await end();
});

async function enclave(options: Partial<Parameters<typeof startEnclave>[0]> = {}) {
  const started = await startEnclave({ chain, app: echo, tls: true, ...options });
  undo.push(() => started[Symbol.asyncDispose]());
  return started;
}

test("one request: attested first, on the same connection", async () => {
  const { url, seen, attested } = await enclave();
  const response = await attestedFetch(`${url}/path?q=1`, {
    ...accepting(chain),
    ...{ method: "POST", headers: { "x-a": "1" }, body: "body" },
  });
  expect([response.status, response.statusText, response.headers.get("x-b")]).toEqual([201, "Made", "2"]);
  expect(await response.text()).toBe(`POST ${url}/path?q=1 1 body`);
  expect(seen).toEqual([`GET /.well-known/attestation?nonce=${attested[0]}`, "POST /path?q=1"]);
});

test("a client attests once for many requests and connections, until the time is up", async () => {
  const { url, attested, seen } = await enclave();
  using client = createTlsClient(url, accepting(chain));
  for (let i = 0; i < 3; i++) expect(await (await client.fetch(`/${i}`)).text()).toContain(`/${i}`);
  const parallel = await Promise.all([0, 1, 2].map(async (i) => (await client.fetch(`/p${i}`)).text()));
  expect([parallel.length, attested.length, seen.length]).toEqual([3, 1, 7]);
  using forgetful = createTlsClient(url, { ...accepting(chain), attestFor: 0 });
  for (let i = 0; i < 3; i++) await (await forgetful.fetch("/")).text();
  expect(new Set(attested).size).toBe(4);
});

test("attest() tells the steps, and that the connection's key was compared", async () => {
  const { url } = await enclave();
  using client = createTlsClient(url, accepting(chain));
  const { steps } = await client.attest();
  expect(steps.find(({ name }) => name === "user data")).toMatchObject({
    status: "passed",
    checked: "The enclave made the key of this TLS connection",
  });
});

test("bodies stream both ways, and no body is none", async () => {
  const { url } = await enclave({
    app: {
      fetch: (request) =>
        request.method === "HEAD"
          ? new Response(null, { status: 204 })
          : new Response(request.body, {
              headers: { "x-encrypted": String(request.url.startsWith("https:")) },
            }),
    },
  });
  using client = createTlsClient(url, accepting(chain));
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const body = new Blob(Array.from({ length: 40 }, () => bytes));
  const response = await client.fetch("/", { method: "PUT", body });
  expect(response.headers.get("x-encrypted")).toBe("true");
  expect((await response.arrayBuffer()).byteLength).toBe(body.size);
  expect((await client.fetch("/", { method: "HEAD" })).status).toBe(204);
});

test("an answer that comes before the whole request is an answer", async () => {
  const { url } = await enclave({ app: { fetch: () => new Response("enough", { status: 413 }) } });
  using client = createTlsClient(url, accepting(chain));
  const endless = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) });
  const init = { method: "POST", body: endless, duplex: "half" } as RequestInit;
  const response = await client.fetch("/", init);
  expect([response.status, await response.text()]).toEqual([413, "enough"]);
});

describe("refuses before a byte of the request is sent:", () => {
  const ask = (url: string, options: object = accepting(chain)) =>
    rejection(
      attestedFetch(`${url}/secret`, {
        ...(options as ReturnType<typeof accepting>),
        method: "POST",
        body: "s",
      }),
    );

  test("a key that no document vouches for", async () => {
    const between = await enclave({ boundKey: new Uint8Array(32).fill(7) });
    expect(await ask(between.url)).toMatch(
      /^E_ATTESTATION_BINDING: TLS key of the connection: SHA-256: got [0-9a-f]{64}/,
    );
    expect(between.seen.join()).not.toContain("secret");
  });

  test("someone between, who passes the attestation on to the real enclave", async () => {
    const real = await enclave();
    const between = await middleman(real.url);
    expect(await ask(between.url)).toMatch(/^E_ATTESTATION_BINDING: TLS key/);
    expect([...between.seen, ...real.seen].join()).not.toContain("secret");
  });

  test("an enclave without TLS of its own, behind someone's", async () => {
    const real = await enclave({ tls: false });
    const between = await middleman(real.url);
    expect(await ask(between.url)).toMatch(/expected none: no TLS in this enclave$/);
  });

  test("a development root, by the default policy", async () => {
    const { url, seen } = await enclave();
    const { pcrs } = accepting(chain);
    expect(await ask(url, { pcrs })).toMatch(/^E_ATTESTATION_ROOT: /);
    expect(seen.join()).not.toContain("secret");
  });

  test.each([
    ["another nonce", { nonce: new Uint8Array(32) }, /^E_ATTESTATION_NONCE: /],
    [
      "other registers",
      { pcrs: new Map([0, 1, 2].map((i) => [i, new Uint8Array(48).fill(9)])) },
      /^E_ATTESTATION_PCRS: /,
    ],
    [
      "debug mode",
      { pcrs: new Map([0, 1, 2].map((i) => [i, new Uint8Array(48)])) },
      /^E_ATTESTATION_DEBUG: /,
    ],
    ["no binding", { userData: null }, /^E_ATTESTATION_BINDING: user data: got none/],
    ["an app's user data", { userData: new Uint8Array(73) }, /^E_ATTESTATION_BINDING: user data: got 0000/],
    [
      "an unbound public key",
      { publicKey: new Uint8Array(41) },
      /^E_ATTESTATION_BINDING: public key: SHA-256: got /,
    ],
    ["an old document", { timestamp: Date.now() - 3_000_000 }, /^E_ATTESTATION_(TIME|CHAIN): /],
  ])("%s", async (_, changes, message) => {
    const { url, seen } = await enclave({ changes });
    expect(await ask(url)).toMatch(message);
    expect(seen.join()).not.toContain("secret");
  });

  test.each<[string, (response: import("node:http").ServerResponse) => void, RegExp]>([
    [
      "HTML",
      (response) => response.setHeader("content-type", "text/html").end("<p>verified</p>"),
      /got content type "text\/html"/,
    ],
    ["nothing", () => {}, /got no whole answer, expected one within 0\.5 s/],
    ["byte by byte", (response) => drip(response), /got no whole answer/],
    ["a gigabyte", (response) => flood(response), /got more than 16492 bytes/],
    [
      "a redirect",
      (response) => response.writeHead(302, { location: "https://127.0.0.1/" }).end(),
      /got status 302/,
    ],
    ["the end", (response) => response.destroy(), /E_ATTESTATION_FETCH|E_CONNECTION/],
  ])("an endpoint that answers with %s", async (_, answer, message) => {
    const { key, cert } = await createTlsIdentity("hostile");
    const server = createHttps({ key, cert }, (_, response) => answer(response));
    const { url, seen } = await listen(server, true);
    undo.push(() => close(server));
    expect(await ask(url, { ...accepting(chain), attestDeadline: 500 })).toMatch(message);
    expect(seen).toEqual([expect.stringMatching(/^GET \/\.well-known\/attestation/)]);
  });

  test("TLS 1.2, plain HTTP, and nobody", async () => {
    const { key, cert } = await createTlsIdentity("old");
    const old = createHttps({ key, cert, maxVersion: "TLSv1.2" });
    const { url } = await listen(old, true);
    undo.push(() => close(old));
    const plain = await enclave({ tls: false });
    for (const other of [url, plain.url.replace("http:", "https:"), "https://127.0.0.1:1"]) {
      expect(await ask(other)).toMatch(/^E_CONNECTION: https:\/\/127\.0\.0\.1:\d+: got /);
    }
  });
});

describe("after the attestation", () => {
  test("another certificate on the next connection is attested anew, and refused", async () => {
    const first = await enclave();
    const second = await enclave({ boundKey: new Uint8Array(32).fill(7) });
    const route = await router(first.url);
    using client = createTlsClient(route.url, accepting(chain));
    await (await client.fetch("/first")).text();
    route.to(second.url);
    // Until the end of the first connection has come through.
    await expect.poll(() => rejection(client.fetch("/secret"))).toMatch(/^E_ATTESTATION_BINDING: TLS key/);
    expect(second.seen.join()).not.toContain("secret");
  });

  test("an enclave that was started anew is attested anew, and accepted", async () => {
    const [first, second] = [await enclave(), await enclave()];
    const route = await router(first.url);
    using client = createTlsClient(route.url, accepting(chain));
    await (await client.fetch("/")).text();
    route.to(second.url);
    // By the time of this answer the end of the first connection has come through.
    await (await attestedFetch(second.url, accepting(chain))).text();
    expect(await (await client.fetch("/again")).text()).toContain("/again");
    expect([first.attested.length, second.attested.length]).toEqual([1, 2]);
  });

  test("a connection that is cut is an error, and nothing is sent twice", async () => {
    const server = await enclave({ app: { fetch: () => new Promise(() => {}) } });
    const route = await router(server.url);
    using client = createTlsClient(route.url, accepting(chain));
    await client.attest();
    const asking = rejection(client.fetch("/once", { method: "POST", body: "b" }));
    await expect.poll(() => server.seen.join()).toContain("/once");
    route.cut();
    expect(await asking).toMatch(/^E_CONNECTION: /);
    expect(server.seen.filter((line) => line.includes("/once"))).toHaveLength(1);
  });

  test("the caller's signal ends it, with its own reason", async () => {
    const server = await enclave({ app: { fetch: () => new Promise(() => {}) } });
    using client = createTlsClient(server.url, accepting(chain));
    await client.attest();
    const controller = new AbortController();
    const asking = client.fetch("/", { signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(asking).rejects.toThrow("enough");
  });
});

test("the caller's signal ends an attestation too, with its own reason", async () => {
  const { key, cert } = await createTlsIdentity("silent");
  const server = createHttps({ key, cert }, () => {});
  const { url, seen } = await listen(server, true);
  undo.push(() => close(server));
  using client = createTlsClient(url, accepting(chain));
  const controller = new AbortController();
  const asking = [client.fetch("/", { signal: controller.signal }), client.attest(controller.signal)];
  await expect.poll(() => seen.length).toBe(2);
  controller.abort(new Error("enough"));
  for (const one of asking) await expect(one).rejects.toThrow("enough");
});

test.each([
  ["http://127.0.0.1:1", "got http:, expected https:"],
  ["https://127.0.0.1:1/path", "expected one such as"],
])("%s is no enclave's URL", (url, message) => {
  expect(() => createTlsClient(url, accepting(chain))).toThrow(message);
});

test("a URL of another origin is refused", async () => {
  using client = createTlsClient("https://127.0.0.1:1", accepting(chain));
  await expect(client.fetch("https://127.0.0.1:2/")).rejects.toThrow("which is what was attested");
});

/** Ends TLS with a key of its own; whatever is asked for attestation it gets from the real one. */
async function middleman(real: string) {
  const { key, cert } = await createTlsIdentity("between");
  const server = createHttps({ key, cert }, async (request, response) => {
    // Documents do not say which connection they came through: a good one can be had for any nonce.
    const nonce = new URL(request.url ?? "", real).searchParams.get("nonce") ?? "";
    const { binding } = await bindingOf(real);
    const document = await signed(chain, {
      ...{ timestamp: Date.now(), nonce: Buffer.from(nonce, "hex") },
      ...binding,
    });
    response.writeHead(200, { "content-type": ATTESTATION_CONTENT_TYPE }).end(document);
  });
  const listening = await listen(server, true);
  undo.push(() => close(server));
  return listening;
}

async function bindingOf(real: string) {
  const { decodeAttestation, decodeEnvelope } = await import("../../format/attestation.ts");
  const { request } = await import(real.startsWith("https:") ? "node:https" : "node:http");
  const bytes = await new Promise<Uint8Array>((resolve, reject) => {
    const url = `${real}/.well-known/attestation?nonce=${"00".repeat(16)}`;
    request(url, { rejectUnauthorized: false }, async (response: AsyncIterable<Uint8Array>) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of response) chunks.push(chunk);
      resolve(Buffer.concat(chunks));
    })
      .once("error", reject)
      .end();
  });
  const { userData, publicKey } = decodeAttestation(decodeEnvelope(new Uint8Array(bytes)).payload);
  return { binding: { userData, publicKey } };
}

/** A TCP relay, as the parent's: to one server, then to another. */
async function router(target: string) {
  let port = Number(new URL(target).port);
  const sockets = new Set<import("node:net").Socket>();
  const server: Server = createServer((socket) => {
    const upstream = connect(port, "127.0.0.1");
    for (const end of [socket, upstream]) {
      sockets.add(end);
      end.on("error", () => {});
    }
    socket.pipe(upstream).pipe(socket);
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
  };
  undo.push(() => {
    cut();
    return new Promise((resolve) => server.close(resolve));
  });
  const url = `https://127.0.0.1:${(server.address() as { port: number }).port}`;
  return {
    ...{ url, cut },
    to(next: string) {
      port = Number(new URL(next).port);
      cut();
    },
  };
}

function drip(response: import("node:http").ServerResponse): void {
  response.writeHead(200, { "content-type": ATTESTATION_CONTENT_TYPE });
  const timer = setInterval(() => response.write("x"), 50);
  response.once("close", () => clearInterval(timer));
}

function flood(response: import("node:http").ServerResponse): void {
  response.writeHead(200, { "content-type": ATTESTATION_CONTENT_TYPE });
  let left = 1 << 30;
  const chunk = Buffer.alloc(1 << 16);
  const pour = () => {
    for (; left > 0 && !response.destroyed; left -= chunk.length) {
      if (!response.write(chunk)) return void response.once("drain", pour);
    }
    response.end();
  };
  pour();
}
