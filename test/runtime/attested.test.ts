/** What the runtime serves below /.well-known/, asked by hand. */
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { ATTESTATION_PATH, decodeAttestation, decodeEnvelope } from "../../format/attestation.ts";
import { decodeBinaryResponse, encodeBinaryRequest } from "../../format/bhttp.ts";
import { decodeBinding, hashKey } from "../../format/binding.ts";
import {
  createMessageKey,
  KEY_PROBLEM,
  MESSAGE_MAX,
  MESSAGE_PATH,
  MESSAGE_REQUEST_TYPE,
  MESSAGE_RESPONSE_TYPE,
  type SealedRequest,
  sealRequest,
} from "../../format/ohttp.ts";
import { toHex } from "../../format/struct.ts";
import { attestedApp } from "../../runtime/attested.ts";
import { Gate } from "../../runtime/gate.ts";
import { MessageKeys } from "../../runtime/keys.ts";
import { MessageEndpoint } from "../../runtime/message.ts";
import { attest } from "../../runtime/nsm.ts";
import { chainOfNow, startEnclave, type TestEnclave } from "../client/enclave.ts";
import type { Chain } from "../format/authority.ts";
import { fromHex, utf8 } from "../format/vectors.ts";

let chain: Chain;
beforeAll(async () => {
  chain = await chainOfNow();
});

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of undo.splice(0).reverse()) await end();
});

const NONCE = "ab".repeat(16);

async function enclave(options: Partial<Parameters<typeof startEnclave>[0]> = {}): Promise<TestEnclave> {
  const app = { fetch: (request: Request) => new Response(`app: ${new URL(request.url).pathname}`) };
  const started = await startEnclave({ chain, app, ...options });
  undo.push(() => started[Symbol.asyncDispose]());
  return started;
}

async function documentOf(url: string) {
  const response = await fetch(`${url}${ATTESTATION_PATH}?nonce=${NONCE}`);
  return decodeAttestation(decodeEnvelope(await response.bytes()).payload);
}

async function seal(
  config: Uint8Array,
  path = "/hello",
  authority = "enclave.example",
): Promise<SealedRequest> {
  const request = { method: "GET", scheme: "https", authority, path, fields: [], content: new Uint8Array(0) };
  return sealRequest(config, encodeBinaryRequest(request));
}

const post = (url: string, body: Uint8Array, type = MESSAGE_REQUEST_TYPE) =>
  fetch(`${url}${MESSAGE_PATH}`, {
    method: "POST",
    headers: { "content-type": type },
    body: new Uint8Array(body),
  });

describe("a document", () => {
  test("answers the nonce and vouches for the keys; any page may ask", async () => {
    const { url, identity } = await enclave({ tls: false });
    const response = await fetch(`${url}${ATTESTATION_PATH}?nonce=${NONCE}`);
    expect([response.status, response.headers.get("content-type")]).toEqual([
      200,
      'application/cose; cose-type="cose-sign1"',
    ]);
    expect(response.headers.get("access-control-allow-origin")).toBe("*");
    expect(response.headers.get("cache-control")).toBe("no-store");
    const { nonce, userData, publicKey } = decodeAttestation(decodeEnvelope(await response.bytes()).payload);
    expect(toHex(nonce ?? new Uint8Array(0))).toBe(NONCE);
    const messageKey = await hashKey(publicKey ?? new Uint8Array(0));
    expect([decodeBinding(userData), identity]).toEqual([{ tlsKey: null, messageKey }, undefined]);
  });

  test.each([
    ["no nonce", ""],
    ["an empty one", "?nonce="],
    ["15 bytes", `?nonce=${"ab".repeat(15)}`],
    ["513 bytes", `?nonce=${"ab".repeat(513)}`],
    ["half a byte", `?nonce=${NONCE}a`],
    ["other digits", `?nonce=${"xy".repeat(16)}`],
    ["a newline", `?nonce=${NONCE}%0a`],
    ["two", `?nonce=${NONCE}&nonce=${NONCE}`],
  ])("is not made for %s", async (_, query) => {
    const { url, attested } = await enclave();
    expect((await fetch(`${url}${ATTESTATION_PATH}${query}`)).status).toBe(400);
    expect(attested).toEqual([]);
  });

  test("is made for 512 bytes, in capitals", async () => {
    const { url, attested } = await enclave();
    expect((await fetch(`${url}${ATTESTATION_PATH}?nonce=${"AB".repeat(512)}`)).status).toBe(200);
    expect(attested).toEqual(["ab".repeat(512)]);
  });

  test("is GET's only; the preflight says so", async () => {
    const { url } = await enclave();
    for (const method of ["POST", "HEAD", "DELETE"]) {
      expect((await fetch(`${url}${ATTESTATION_PATH}?nonce=${NONCE}`, { method })).status).toBe(405);
    }
    const preflight = await fetch(`${url}${MESSAGE_PATH}`, { method: "OPTIONS" });
    expect([preflight.status, preflight.headers.get("access-control-allow-headers")]).toEqual([
      204,
      "content-type",
    ]);
  });

  test("that cannot be had is 503 without a word of why; the log has it", async () => {
    const onError = vi.fn();
    const fail = () => Promise.reject(new Error("the reason"));
    const app = attestedApp({ fetch: () => new Response() }, { attest: fail, tlsKey: null, onError });
    const response = await app.fetch(new Request(`http://x${ATTESTATION_PATH}?nonce=${NONCE}`));
    expect([response.status, await response.text()]).toEqual([503, "no attestation document can be had\n"]);
    expect(onError).toHaveBeenCalledOnce();
  });

  test("is made so often and no more", async () => {
    const { url, attested } = await enclave();
    const statuses = await Promise.all(
      Array.from(
        { length: 100 },
        async () => (await fetch(`${url}${ATTESTATION_PATH}?nonce=${NONCE}`)).status,
      ),
    );
    expect(statuses.filter((status) => status === 429).length).toBeGreaterThan(20);
    expect(attested.length).toBe(statuses.filter((status) => status === 200).length);
  });
});

test("a gate lets through a burst, then its rate, and so many at once", async () => {
  let now = 0;
  const gate = new Gate({ rate: 10, burst: 3, pending: 2, now: () => now });
  const waiting = Promise.withResolvers<string>();
  const done = () => Promise.resolve("done");
  expect(await gate.run(done)).toBe("done");
  const pending = [gate.run(() => waiting.promise), gate.run(() => waiting.promise)];
  now += 1000;
  expect(await gate.run(done)).toBeUndefined();
  waiting.resolve("done");
  expect(await Promise.all(pending)).toEqual(["done", "done"]);
  const after = [];
  for (let i = 0; i < 5; i++) after.push(await gate.run(done));
  expect(after).toEqual(["done", "done", "done", undefined, undefined]);
  now += 100;
  expect([await gate.run(done), await gate.run(done)]).toEqual(["done", undefined]);
  await expect(gate.run(() => Promise.reject(new Error("x")))).resolves.toBeUndefined();
  now += 100;
  await expect(gate.run(() => Promise.reject(new Error("x")))).rejects.toThrow("x");
});

describe("the app is not reached", () => {
  test.each([
    ATTESTATION_PATH,
    `/x/..${ATTESTATION_PATH}`,
    "/.well-known/%2e/attestation",
    MESSAGE_PATH,
    `//..${MESSAGE_PATH}`.slice(1),
  ])("at %s", async (path) => {
    const { url } = await enclave();
    const answer = await new Promise<string>((resolve, reject) => {
      const { hostname, port } = new URL(url);
      httpRequest({ hostname, port, path, method: "PUT" }, async (response) => {
        let text = "";
        for await (const chunk of response) text += chunk;
        resolve(text);
      })
        .once("error", reject)
        .end();
    });
    expect(answer).toMatch(/^expected (GET|POST)\n$/);
  });

  test.each([ATTESTATION_PATH, MESSAGE_PATH])("by an upgrade of %s", async (path) => {
    const upgrade = vi.fn((_request, socket) => void socket.end("app"));
    const { url } = await enclave({ app: { fetch: () => new Response(), upgrade } });
    const ask = async (target: string) => {
      const socket = connect(Number(new URL(url).port), "127.0.0.1");
      socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`);
      let text = "";
      for await (const chunk of socket) text += chunk;
      return text;
    };
    expect(await ask(path)).toMatch(/^HTTP\/1\.1 400 /);
    expect(upgrade).not.toHaveBeenCalled();
    expect(await ask("/other")).toBe("app");
  });

  test.each([ATTESTATION_PATH, MESSAGE_PATH])("by an encrypted request for %s", async (path) => {
    const { url } = await enclave();
    const { publicKey } = await documentOf(url);
    const { message, open } = await seal(publicKey ?? new Uint8Array(0), path);
    const { status } = decodeBinaryResponse(await open(await (await post(url, message)).bytes()));
    expect(status).toBe(404);
  });
});

describe("an encrypted request", () => {
  test("is answered once: the same again is refused, and does not reach the app", async () => {
    const fetch = vi.fn(() => new Response("once"));
    const { url } = await enclave({ app: { fetch } });
    const { publicKey } = await documentOf(url);
    const { message, open } = await seal(publicKey ?? new Uint8Array(0));
    const response = await post(url, message);
    expect(response.headers.get("content-type")).toBe(MESSAGE_RESPONSE_TYPE);
    expect(decodeBinaryResponse(await open(await response.bytes())).content).toEqual(utf8("once"));
    const again = await Promise.all([post(url, message), post(url, message)]);
    expect(again.map(({ status }) => status)).toEqual([409, 409]);
    expect(fetch).toHaveBeenCalledOnce();
  });

  test("that came twice at the same time is answered once", async () => {
    const { url } = await enclave();
    const { publicKey } = await documentOf(url);
    const { message } = await seal(publicKey ?? new Uint8Array(0));
    const statuses = await Promise.all(
      Array.from({ length: 8 }, async () => (await post(url, message)).status),
    );
    expect(statuses.sort()).toEqual([200, ...Array.from({ length: 7 }, () => 409)]);
  });

  test("with any changed byte is refused, and does not reach the app", async () => {
    const fetch = vi.fn(() => new Response());
    const { url } = await enclave({ app: { fetch } });
    const { publicKey } = await documentOf(url);
    const { message } = await seal(publicKey ?? new Uint8Array(0));
    for (let offset = 0; offset < message.length; offset++) {
      const changed = message.slice();
      changed[offset] = (changed[offset] ?? 0) ^ 0x80;
      expect((await post(url, changed)).status).toBe(400);
    }
    expect(fetch).not.toHaveBeenCalled();
    expect((await post(url, message)).status).toBe(200);
  });

  test.each([
    ["nothing", new Uint8Array(0), 400],
    ["garbage", new Uint8Array(200).fill(1), 400],
    ["too much", new Uint8Array(MESSAGE_MAX + 1), 413],
  ])("of %s is refused", async (_, body, status) => {
    const { url, errors } = await enclave();
    expect((await post(url, body)).status).toBe(status);
    expect(errors).toEqual([]);
  });

  test("of another type or method is refused", async () => {
    const { url } = await enclave();
    expect((await post(url, new Uint8Array(9), "text/plain")).status).toBe(415);
    expect((await fetch(`${url}${MESSAGE_PATH}`)).status).toBe(405);
  });

  test("to a key that is not known says so, in the words of RFC 9458", async () => {
    const { url } = await enclave();
    const { message } = await seal((await createMessageKey(200)).config);
    const response = await post(url, message);
    expect([response.status, response.headers.get("content-type")]).toEqual([
      400,
      "application/problem+json",
    ]);
    expect(await response.json()).toMatchObject({ type: KEY_PROBLEM });
  });

  test.each([
    ["another path", "relative", "enclave.example"],
    ["a path that moves the host", "@evil/", "enclave.example"],
    ["an authority with a path", "/", "a/b?"],
    ["an authority with a user", "/", "a@b"],
    ["no authority", "/", ""],
  ])("whose inside has %s is an encrypted 400", async (_, path, authority) => {
    const { url } = await enclave();
    const { publicKey } = await documentOf(url);
    const { message, open } = await seal(publicKey ?? new Uint8Array(0), path, authority);
    const response = decodeBinaryResponse(await open(await (await post(url, message)).bytes()));
    expect(response.status).toBe(400);
  });

  test("finds no room while others take it all, and room when they are done", async () => {
    const keys = new MessageKeys();
    const { config } = await keys.current();
    const held = Promise.withResolvers<Response>();
    const reached = Promise.withResolvers<void>();
    const fetch = () => {
      reached.resolve();
      return held.promise;
    };
    const endpoint = new MessageEndpoint({ fetch, keys, onError() {}, inFlightMax: 150 });
    const ask = async () => {
      const { message } = await seal(config);
      const headers = { "content-type": MESSAGE_REQUEST_TYPE };
      const body = new Uint8Array(message);
      return endpoint.answer(new Request(`http://x${MESSAGE_PATH}`, { method: "POST", headers, body }));
    };
    const first = ask();
    await reached.promise;
    expect((await ask()).status).toBe(503);
    held.resolve(new Response("done"));
    expect((await first).status).toBe(200);
    expect((await ask()).status).toBe(200);
  });
});

describe("keys", () => {
  test("change every hour; the one before serves on", async () => {
    let now = 0;
    const keys = new MessageKeys({ now: () => now });
    const first = await keys.current();
    expect(await keys.current()).toBe(first);
    now += 60 * 60_000;
    const [second, same] = await Promise.all([keys.current(), keys.current()]);
    expect(second).toBe(same);
    expect(second.id).not.toBe(first.id);
    expect(keys.find(first.id)).toBe(first);
  });

  test("are forgotten after two hours", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout"] });
    undo.push(() => vi.useRealTimers());
    const keys = new MessageKeys();
    const first = await keys.current();
    vi.advanceTimersByTime(2 * 60 * 60_000);
    expect(keys.find(first.id)).toBeUndefined();
    expect(keys.isFirst(first, new Uint8Array(32))).toBe(false);
    expect(await keys.current()).not.toBe(first);
  });

  test("serve so many requests and no more; then there is another, and of all a few", async () => {
    const keys = new MessageKeys({ requestsMax: 2 });
    const made = [];
    for (let i = 0; i < 6; i++) {
      const key = await keys.current();
      made.push(key);
      expect(keys.isFirst(key, Uint8Array.of(i))).toBe(true);
      expect(keys.isFirst(key, Uint8Array.of(i))).toBe(false);
      expect(keys.find(key.id)).toBe(key);
      expect(keys.isFirst(key, Uint8Array.of(i, i))).toBe(true);
      expect(keys.find(key.id)).toBeUndefined();
    }
    expect(new Set(made).size).toBe(6);
    // Forgotten altogether: not even its list of requests is there.
    expect(keys.isFirst(made[0] as (typeof made)[0], fromHex("77"))).toBe(false);
  });
});

test("an app cannot have a binding signed", async () => {
  const userData = utf8("cloister\u0001 and whatever a caller may pass");
  await expect(attest({ userData })).rejects.toThrow('got bytes that begin with "cloister"');
});
