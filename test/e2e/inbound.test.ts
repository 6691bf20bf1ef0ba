/**
 * Frameworks as they are, by published ports that tell them who connects, in one VM; then what clients and apps must not do,
 * and the frameworks again.
 */
import { type EventEmitter, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, get, request as httpRequest } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { createRequire } from "node:module";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { build } from "../../packer/index.ts";
import { certificate } from "../runtime/certificate.ts";
import { CACHE, type Running, start } from "./enclave.ts";
import { Echo, grpc } from "./inbound/service.ts";

/** As far as it is used here: the package has no types. */
interface Ws extends EventEmitter {
  send(data: string | Buffer): void;
  close(): void;
  terminate(): void;
}
const WebSocket = createRequire(import.meta.url)("ws") as new (url: string) => Ws;

type Answer = (error: unknown, answer: unknown) => void;
interface Text {
  readonly text: string;
}

/** What the service's definition makes of its calls. */
interface EchoClient {
  Unary(message: Text, answer: Answer): void;
  Down(message: Text): AsyncIterable<Text>;
  Up(answer: Answer): { write(message: Text): void; end(): void };
  Both(): AsyncIterable<Text> & { write(message: Text): void; end(): void };
  close(): void;
}

const PORTS = {
  hono: 8080,
  express: 8001,
  fastify: 8002,
  ws: 8003,
  http2: 8004,
  https2: 8005,
  grpc: 8006,
  raw: 8007,
};
const MANY = 1000;
/** The machine that runs this may have other things to do. */
const PATIENT = { timeout: 60_000 };

const folder = mkdtempSync(join(tmpdir(), "cloister-inbound-"));
const socketPath = join(folder, "hono.sock");
let running: Running;
let port: Record<keyof typeof PORTS, number>;
const cleanups: (() => unknown)[] = [];

beforeAll(async () => {
  const { eifPath } = await build({
    directory: join(import.meta.dirname, "inbound"),
    output: join(folder, "app.eif"),
    overrides: { entry: "app.mjs", ports: [8080], memory: "512M", proxyProtocol: true },
    cacheDirectory: CACHE,
  });
  const tcp = Object.values(PORTS).map((vsockPort) => ({ port: 0, vsockPort }));
  running = await start(eifPath, { publish: [...tcp, { path: socketPath, vsockPort: PORTS.hono }] });
  await running.enclave.ready;
  const found = Object.keys(PORTS).map((name, index) => [name, running.enclave.published[index]?.port]);
  port = Object.fromEntries(found);
});

afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(running.story());
  for (const cleanUp of cleanups.splice(0)) await cleanUp();
});

afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const url = (name: keyof typeof PORTS, path = "/") => `http://127.0.0.1:${port[name]}${path}`;

async function dial(name: keyof typeof PORTS, first = ""): Promise<Socket> {
  const socket = connect({ port: port[name], host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => {});
  cleanups.push(() => socket.destroy());
  await once(socket, "connect");
  socket.write(first);
  return socket;
}

async function counts(): Promise<{
  sent: number;
  closes: number;
  connections: number;
  rss: number;
}> {
  return (await (await fetch(url("express", "/counts"))).json()) as never;
}

describe("frameworks", () => {
  test("express: who asks, and a body", async () => {
    const [incoming] = await once(get(url("express"), { agent: new Agent() }), "response");
    const { localPort } = incoming.socket;
    expect(JSON.parse(await text(incoming))).toEqual({ ip: "127.0.0.1", port: localPort });
    const posted = { method: "POST", body: '{"a":1}', headers: { "content-type": "application/json" } };
    expect(await (await fetch(url("express"), posted)).json()).toEqual({ a: 1 });
  });

  test("fastify", async () => {
    const response = await fetch(url("fastify", "/you"));
    expect(await response.json()).toEqual({ name: "you", ip: "127.0.0.1" });
  });

  test("hono, and by a Unix socket", async () => {
    expect(await (await fetch(url("hono"))).text()).toBe("hono");
    const outgoing = httpRequest({ socketPath, path: "/upper", method: "POST" });
    outgoing.end("loud");
    const [incoming] = await once(outgoing, "response");
    expect(await text(incoming)).toBe("LOUD");
  });

  test("ws", async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port.ws}`);
    cleanups.push(() => socket.terminate());
    const messages: string[] = [];
    socket.on("message", (data: Buffer) => messages.push(String(data).slice(0, 20)));
    await once(socket, "open");
    socket.send("text");
    socket.send(Buffer.alloc(1 << 20, "x"));
    await expect.poll(() => messages, PATIENT).toEqual(["hello 127.0.0.1", "text", "x".repeat(20)]);
    socket.close();
    expect((await once(socket, "close"))[0]).toBe(1005);
  });

  test("node:http2, cleartext and with TLS, streams at the same time", async () => {
    const exchange = async (session: ClientHttp2Session) => {
      cleanups.push(() => session.destroy());
      const ask = async (body: string) => {
        const stream = session.request({ ":method": "POST", ":path": "/" });
        stream.end(body);
        return await text(stream);
      };
      const bodies = Array.from({ length: 20 }, (_, n) => String(n).repeat(10_000));
      expect(await Promise.all(bodies.map(ask))).toEqual(bodies.map((body) => `from 127.0.0.1 ${body}`));
    };
    await exchange(connectHttp2(url("http2")));
    await exchange(
      connectHttp2(`https://127.0.0.1:${port.https2}`, { ca: certificate, servername: "localhost" }),
    );
  });

  test("gRPC: unary, and streams down, up and both ways", async () => {
    const credentials = grpc.credentials.createInsecure();
    const client = new Echo(`127.0.0.1:${port.grpc}`, credentials) as unknown as EchoClient;
    cleanups.push(() => client.close());
    const unary = await new Promise((resolve, reject) =>
      client.Unary({ text: "one" }, (error, answer) => (error ? reject(error) : resolve(answer))),
    );
    expect(unary).toEqual({ text: "one", peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/) });
    const texts = async (call: AsyncIterable<{ text: string }>) => {
      const all: string[] = [];
      for await (const message of call) all.push(message.text);
      return all;
    };
    expect(await texts(client.Down({ text: "abc" }))).toEqual(["a", "b", "c"]);
    const up = new Promise((resolve, reject) => {
      const call = client.Up((error, answer) => (error ? reject(error) : resolve(answer)));
      for (const part of ["x", "y", "z"]) call.write({ text: part });
      call.end();
    });
    expect(await up).toMatchObject({ text: "xyz" });
    const both = client.Both();
    for (const part of ["1", "2", "3"]) both.write({ text: part });
    both.end();
    expect(await texts(both)).toEqual(["1", "2", "3"]);
  });
});

describe("faults", () => {
  test(`slow-loris: ${MANY} half requests take little, others are served meanwhile, and in the end they are too`, async () => {
    const before = await counts();
    const dials = Array.from({ length: MANY }, () => dial("express", "GET / HTTP/1.1\r\nX-Slow: "));
    const slow = await Promise.all(dials);
    await expect
      .poll(async () => (await counts()).connections, { timeout: 100_000, interval: 1000 })
      .toBeGreaterThan(MANY);
    const during = await counts();
    expect(during.rss - before.rss).toBeLessThan(96 << 20);
    const answers = slow.map(async (socket) => {
      socket.end("1\r\nHost: x\r\nConnection: close\r\n\r\n");
      return (await text(socket)).slice(0, 15);
    });
    expect(new Set(await Promise.all(answers))).toEqual(new Set(["HTTP/1.1 200 OK"]));
  });

  test("hostile bytes end their own connection", async () => {
    const names = Object.keys(PORTS) as (keyof typeof PORTS)[];
    for (const name of names.filter((other) => other !== "raw")) {
      const socket = await dial(name);
      socket.resume().end(Buffer.alloc(4096, "\x00\xff\x16\x03\x01"));
      await new Promise((resolve) => socket.once("close", resolve).once("end", resolve));
    }
    expect(await (await fetch(url("hono"))).text()).toBe("hono");
  });

  test("a client that never reads stalls the app, one that is deaf stalls the client", async () => {
    const idle = await dial("raw", "S");
    idle.pause();
    let last = -1;
    // Two answers in a row with the same count: it stands still.
    await expect
      .poll(
        async () => {
          const { sent } = await counts();
          const stands = sent === last && sent > 0;
          last = sent;
          return stands;
        },
        { timeout: 60_000, interval: 500 },
      )
      .toBe(true);
    expect(last).toBeLessThan(32 << 20);

    const talker = await dial("raw", "D");
    const chunk = Buffer.alloc(1 << 16);
    while (talker.bytesWritten - talker.writableLength < 64 << 20) {
      if (talker.write(chunk)) continue;
      const drained = await Promise.race([once(talker, "drain"), counts().then(() => undefined)]);
      if (drained === undefined && talker.writableLength > 4 << 20) break;
    }
    expect(talker.bytesWritten - talker.writableLength).toBeLessThan(32 << 20);
  });

  test("a reset of the client closes the app's connection; an app that breaks off reaches the client", async () => {
    const before = await counts();
    const client = await dial("raw", "E mid-stream");
    await once(client, "data");
    client.resetAndDestroy();
    await expect.poll(async () => (await counts()).closes - before.closes, PATIENT).toBe(1);

    const other = await dial("raw", "B");
    const [half] = await once(other, "data");
    expect(String(half)).toBe("half a");
    await new Promise((resolve) => other.once("close", resolve).once("end", resolve).resume());
  });

  test("half-close both ways, behind it all", async () => {
    const client = await dial("raw", "Equestion");
    client.end();
    expect(await text(client)).toBe("question");
  });
});
