/** createClient against the runtime's own endpoints, and against what lies between. */
import { createServer, type RequestListener } from "node:http";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Fetch } from "../../client/endpoint.ts";
import { type Client, type ClientOptions, createClient } from "../../client/index.ts";
import { encodeBinding } from "../../format/binding.ts";
import { MESSAGE_MAX, MESSAGE_PATH, MESSAGE_RESPONSE_TYPE } from "../../format/ohttp.ts";
import type { FetchApp } from "../../runtime/serve.ts";
import type { Chain } from "../format/authority.ts";
import { rejection } from "../format/vectors.ts";
import { accepting, chainOfNow, close, listen, startEnclave } from "./enclave.ts";

let chain: Chain;
beforeAll(async () => {
  chain = await chainOfNow();
});

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of undo.splice(0).reverse()) await end();
});

/** The app answers with what it was asked. */
const echo: FetchApp = {
  async fetch(request) {
    const { method, url, headers } = request;
    return Response.json({ method, url, headers: Object.fromEntries(headers), body: await request.text() });
  },
};

async function enclave(options: Partial<Parameters<typeof startEnclave>[0]> = {}) {
  const started = await startEnclave({ chain, app: echo, ...options });
  undo.push(() => started[Symbol.asyncDispose]());
  return started;
}

function client(url: string, options: Partial<ClientOptions> = {}): Client {
  return createClient(url, { ...accepting(chain), ...options } as ClientOptions);
}

/** A fetch that keeps what was sent, and may change what comes. */
function spy(change: (url: URL, init: RequestInit) => Promise<Response> | undefined = () => undefined) {
  const sent: { readonly url: URL; readonly init: RequestInit }[] = [];
  const fetch: Fetch = async (url, init) => {
    sent.push({ url, init });
    return (await change(url, init)) ?? globalThis.fetch(url, init);
  };
  return { fetch, sent };
}

const NO_KEYS = { tlsKey: null, messageKey: null };
const isMessage = (url: URL) => url.pathname === MESSAGE_PATH;

test("method, path, headers and body reach the app, its response the caller, and nobody between sees them", async () => {
  const { url, seen } = await enclave();
  const { fetch, sent } = spy();
  const response = await client(url, { fetch }).fetch("/private?q=1", {
    ...{ method: "POST", body: "the secret", headers: { "x-token": "bearer" } },
  });
  expect(response.status).toBe(200);
  expect(await response.json()).toMatchObject({
    ...{ method: "POST", url: `${url.replace("http:", "https:")}/private?q=1`, body: "the secret" },
    headers: { "x-token": "bearer", "content-type": "text/plain;charset=UTF-8" },
  });
  expect(seen).toEqual([expect.stringMatching(/^GET \/\.well-known\/attestation/), `POST ${MESSAGE_PATH}`]);
  const outside = Buffer.from(sent[1]?.init.body as Uint8Array).toString("latin1");
  expect(outside).not.toMatch(/secret|private|bearer|POST/);
});

test("one attestation serves many requests at once, until the time is up", async () => {
  const { url, attested } = await enclave();
  const one = client(url);
  await Promise.all(Array.from({ length: 20 }, async () => (await one.fetch("/")).json()));
  expect(attested).toHaveLength(1);
  const forgetful = client(url, { attestFor: 0 });
  for (let i = 0; i < 3; i++) await forgetful.fetch("/");
  expect(new Set(attested).size).toBe(4);
});

test("attest() tells the steps, and that the key was compared", async () => {
  const { url } = await enclave();
  const { steps, document } = await client(url).attest();
  expect(steps.find(({ name }) => name === "public key")).toMatchObject({
    status: "passed",
    got: Buffer.from(document.publicKey ?? []).toString("hex"),
  });
});

test("statuses, several headers of a name, no body, large and binary bodies", async () => {
  const bytes = crypto.getRandomValues(new Uint8Array(50_000));
  const { url } = await enclave({
    app: {
      async fetch(request) {
        const { pathname } = new URL(request.url);
        if (pathname === "/none") return new Response(null, { status: 204 });
        if (pathname === "/head") return new Response(request.method === "HEAD" ? "x" : "GET");
        if (pathname === "/cookies") {
          return new Response("", {
            headers: [
              ["set-cookie", "a=1"],
              ["set-cookie", "b=2"],
            ],
          });
        }
        return new Response(await request.bytes(), { status: 418 });
      },
    },
  });
  const one = client(url);
  expect((await one.fetch("/none")).status).toBe(204);
  expect((await one.fetch("/none")).body).toBeNull();
  expect(await (await one.fetch("/head", { method: "HEAD" })).text()).toBe("");
  expect((await one.fetch("/cookies")).headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  const echoed = await one.fetch("/", { method: "PUT", body: bytes });
  expect([echoed.status, Buffer.from(await echoed.bytes()).equals(bytes)]).toEqual([418, true]);
});

test("what the app does wrong is an encrypted 500, and its log has it", async () => {
  const { url, errors } = await enclave({
    app: {
      fetch() {
        throw new Error("the reason");
      },
    },
  });
  const response = await client(url).fetch("/");
  expect([response.status, await response.text()]).toEqual([500, "Internal Server Error"]);
  expect(errors).toEqual([expect.objectContaining({ message: "the reason" })]);
});

test("too much either way is an error", async () => {
  const { url } = await enclave({ app: { fetch: () => new Response(new Uint8Array(MESSAGE_MAX)) } });
  const one = client(url);
  expect((await one.fetch("/")).status).toBe(500);
  const body = new Uint8Array(MESSAGE_MAX);
  expect(await rejection(one.fetch("/", { method: "POST", body }))).toMatch(
    /^E_MESSAGE_SIZE: request: got a larger/,
  );
  const { fetch } = spy(async (target) =>
    isMessage(target)
      ? new Response(new Uint8Array(MESSAGE_MAX + 1), { headers: { "content-type": MESSAGE_RESPONSE_TYPE } })
      : (undefined as never),
  );
  expect(await rejection(client(url, { fetch }).fetch("/"))).toMatch(
    /^E_MESSAGE_SIZE: .*more than 4194304 bytes/,
  );
});

describe("is refused before anything is sent:", () => {
  test("a development root, by the default policy", async () => {
    const { url, seen } = await enclave();
    const { pcrs } = accepting(chain);
    expect(await rejection(createClient(url, { pcrs }).fetch("/secret"))).toMatch(/^E_ATTESTATION_ROOT: /);
    expect(seen).toHaveLength(1);
  });

  test.each([
    ["another nonce", { nonce: new Uint8Array(32) }, /^E_ATTESTATION_NONCE: /],
    ["no binding", { userData: null }, /^E_ATTESTATION_BINDING: user data: got none/],
    [
      "another key than the bound one",
      { publicKey: new Uint8Array(41) },
      /^E_ATTESTATION_BINDING: public key/,
    ],
    [
      "a binding that has none",
      { userData: encodeBinding(NO_KEYS) },
      /^E_ATTESTATION_BINDING: user data: got no key/,
    ],
    ["no key", { publicKey: null }, /^E_ATTESTATION_BINDING: public key: SHA-256: got none/],
  ])("a document with %s", async (_, changes, message) => {
    const { url, seen } = await enclave({ changes });
    expect(await rejection(client(url).fetch("/secret"))).toMatch(message);
    expect(seen).toHaveLength(1);
  });

  test("and the next call asks again", async () => {
    const { url, seen } = await enclave({ changes: { userData: null } });
    const one = client(url);
    for (let i = 0; i < 2; i++) await rejection(one.fetch("/"));
    expect(seen).toHaveLength(2);
  });

  test("a URL of another origin", async () => {
    await expect(client("http://127.0.0.1:1").fetch("http://127.0.0.1:2/")).rejects.toThrow(
      "what was attested",
    );
  });
});

describe("an answer that is not the enclave's", () => {
  test.each<[string, RequestListener, RegExp]>([
    [
      "HTML",
      (_, response) => response.setHeader("content-type", "text/html").end("<p>ok</p>"),
      /^E_MESSAGE_REFUSED: .*status 200, "<p>ok<\/p>"/,
    ],
    [
      "an error",
      (_, response) => response.writeHead(502).end("\u001b[31mno"),
      /^E_MESSAGE_REFUSED: .*status 502, "\\u001b\[31mno"/,
    ],
    [
      "other bytes",
      (_, response) => response.setHeader("content-type", MESSAGE_RESPONSE_TYPE).end("x".repeat(99)),
      /^E_MESSAGE: encrypted response/,
    ],
    [
      "nothing",
      (_, response) => response.setHeader("content-type", MESSAGE_RESPONSE_TYPE).end(),
      /^E_MESSAGE: encrypted response/,
    ],
    ["silence", () => {}, /^E_CONNECTION: .*got no whole answer, expected one within 0.3 s/],
    ["the end", (_, response) => response.destroy(), /^E_CONNECTION: /],
  ])("%s is refused", async (_, listener, message) => {
    const { url } = await enclave();
    const between = await listen(createServer(listener), false);
    undo.push(() => close(between.server));
    const { fetch } = spy((target, init) =>
      isMessage(target) ? globalThis.fetch(new URL(MESSAGE_PATH, between.url), init) : undefined,
    );
    expect(await rejection(client(url, { fetch, deadline: 300 }).fetch("/"))).toMatch(message);
  });

  test("another request's response is refused", async () => {
    const { url } = await enclave();
    let first: Promise<Uint8Array<ArrayBuffer>> | undefined;
    const { fetch } = spy(async (target, init) => {
      if (!isMessage(target)) return undefined as never;
      const response = await globalThis.fetch(target, init);
      first ??= response.clone().bytes();
      return new Response(await first, { headers: { "content-type": MESSAGE_RESPONSE_TYPE } });
    });
    const one = client(url, { fetch });
    expect((await one.fetch("/1")).status).toBe(200);
    expect(await rejection(one.fetch("/2"))).toMatch(/^E_MESSAGE: encrypted response: got another key's/);
  });
});

describe("a key that the enclave does not have any more", () => {
  async function restarted() {
    const [first, second] = [await enclave(), await enclave()];
    let target = first.url;
    const { fetch } = spy((url, init) => globalThis.fetch(url.href.replace(first.url, target), init));
    const one = client(first.url, { fetch });
    await one.fetch("/");
    target = second.url;
    return { one, second };
  }

  test("is found out, and what does no harm twice is sent once more", async () => {
    const { one, second } = await restarted();
    expect((await one.fetch("/again")).status).toBe(200);
    expect(second.attested).toHaveLength(1);
  });

  test("is the caller's to know for what may do harm, and the next call goes through", async () => {
    const { one, second } = await restarted();
    expect(await rejection(one.fetch("/pay", { method: "POST" }))).toMatch(/^E_MESSAGE_REFUSED: /);
    expect(second.attested).toHaveLength(0);
    expect((await one.fetch("/pay", { method: "POST" })).status).toBe(200);
  });

  test("who keeps saying so is believed once", async () => {
    const { url, attested } = await enclave();
    const { fetch, sent } = spy(async (target) =>
      isMessage(target) ? new Response("no", { status: 400 }) : (undefined as never),
    );
    const one = client(url, { fetch });
    expect(await rejection(one.fetch("/"))).toMatch(/^E_MESSAGE_REFUSED: /);
    expect(await rejection(one.fetch("/"))).toMatch(/^E_MESSAGE_REFUSED: /);
    expect([attested.length, sent.length]).toEqual([2, 4]);
  });
});

test("the caller's signal ends it, with its own reason, and others go on", async () => {
  const { url } = await enclave();
  const one = client(url);
  const controller = new AbortController();
  const given = one.fetch("/", { signal: controller.signal });
  const other = one.fetch("/");
  controller.abort(new Error("enough"));
  await expect(given).rejects.toThrow("enough");
  expect((await other).status).toBe(200);
});
