import { once } from "node:events";
import { writeSync } from "node:fs";
import type { Socket } from "node:net";
import { Hono } from "hono";
import { afterEach, expect, test, vi } from "vitest";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { type FetchApp, type Served, serveFetch } from "../../runtime/serve.ts";
import { Parent, readAll } from "./parent.ts";

const PORT = 8080;
const warnings: Error[] = [];
process.on("warning", (warning) => warnings.push(warning));

const stack: (() => void)[] = [];
afterEach(() => {
  for (const undo of stack.splice(0)) undo();
});

interface Rig {
  readonly parent: Parent;
  readonly served: Served;
  readonly errors: unknown[];
  connect(): Socket;
}

function serve(app: FetchApp): Rig {
  const parent = new Parent();
  const errors: unknown[] = [];
  const served = serveFetch(app, {
    port: PORT,
    onError: (error) => errors.push(error),
    listen: parent.listen,
  });
  const connect = () => {
    const socket = parent.connect(PORT);
    socket.on("error", () => {});
    stack.push(() => socket.destroy());
    return socket;
  };
  return { parent, served, errors, connect };
}

/** One raw exchange: what comes back until the server closes. */
async function exchange(rig: Rig, text: string): Promise<string> {
  const socket = rig.connect();
  socket.write(text, "latin1");
  return await readAll(socket);
}

const get = (path = "/", headers = "") =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers}\r\n`;

test("method, URL, headers and body reach the app, and its response the client", async () => {
  const rig = serve({
    async fetch(request) {
      const body = `${request.method} ${request.url} ${request.headers.get("x-a")} ${await request.text()}`;
      return new Response(body, { status: 201, headers: { "x-b": "2" } });
    },
  });
  const answer = await exchange(
    rig,
    "POST /path?q=1 HTTP/1.1\r\nHost: app.example:99\r\nX-A: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
  );
  expect(answer).toMatch(/^HTTP\/1\.1 201 Created\r\n/);
  expect(answer).toMatch(/\r\nx-b: 2\r\n/);
  expect(answer).toContain("POST http://app.example:99/path?q=1 1 body");
});

test("a Hono app is served as it is", async () => {
  const app = new Hono();
  app.get("/hello/:name", (c) => c.json({ hello: c.req.param("name") }));
  const answer = await exchange(serve(app), get("/hello/world"));
  expect(answer).toContain('{"hello":"world"}');
});

test("a status text is kept, several Set-Cookie stay several", async () => {
  const headers = new Headers([
    ["set-cookie", "a=1"],
    ["set-cookie", "b=2"],
  ]);
  const rig = serve({ fetch: () => new Response(null, { status: 200, statusText: "Fine", headers }) });
  const answer = await exchange(rig, get());
  expect(answer).toMatch(/^HTTP\/1\.1 200 Fine\r\n/);
  expect(answer).toContain("set-cookie: a=1\r\nset-cookie: b=2\r\n");
});

test("HEAD has the headers and no body, and the app's stream is let go", async () => {
  const cancel = vi.fn();
  const rig = serve({
    fetch: () => new Response(new ReadableStream({ cancel }), { headers: { "content-length": "5" } }),
  });
  const answer = await exchange(rig, "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  expect(answer).toContain("content-length: 5\r\n");
  expect(answer).toMatch(/\r\n\r\n$/);
  expect(cancel).toHaveBeenCalledOnce();
});

test("204 has no body and no length", async () => {
  const answer = await exchange(serve({ fetch: () => new Response(null, { status: 204 }) }), get());
  expect(answer).toMatch(/^HTTP\/1\.1 204 No Content\r\n/);
  expect(answer).not.toMatch(/content-length|transfer-encoding/i);
});

test("bodies stream both ways at once", async () => {
  const rig = serve({ fetch: (request) => new Response(request.body) });
  const socket = rig.connect();
  socket.write("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  for (const part of ["one", "two"]) {
    socket.write(`3\r\n${part}\r\n`);
    let heard = "";
    while (!heard.includes(part)) heard += String((await once(socket, "data"))[0]);
  }
  socket.write("0\r\n\r\n");
  await once(socket, "end");
});

test("an upload waits for the app to read it", async () => {
  const go = Promise.withResolvers<void>();
  const rig = serve({
    async fetch(request) {
      const reader = (request.body as ReadableStream<Uint8Array>).getReader();
      let received = 0;
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        received += next.value.byteLength;
        // The first chunk is read, the others wait.
        await go.promise;
      }
      return new Response(String(received));
    },
  });
  const socket = rig.connect();
  const chunk = Buffer.alloc(64 * 1024);
  const chunks = 256;
  socket.write(
    `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${chunks * chunk.length}\r\nConnection: close\r\n\r\n`,
  );
  let sent = 0;
  const send = () => {
    for (let open = true; open && sent < chunks; sent++) open = socket.write(chunk);
  };
  socket.on("drain", send);
  send();
  await stalls(() => sent);
  expect(sent).toBeLessThan(chunks / 4);
  go.resolve();
  expect(await readAll(socket)).toContain(String(chunks * chunk.length));
});

/** Until a count above zero stays the same for a while. */
async function stalls(count: () => number): Promise<void> {
  let before = 0;
  const isStill = () => {
    const now = count();
    const still = now > 0 && now === before;
    before = now;
    expect(still).toBe(true);
  };
  await vi.waitFor(isStill, { interval: 200, timeout: 20_000 });
}

test("a download waits for the client to read it, and ends with it", async () => {
  let pulled = 0;
  const cancelled = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  const rig = serve({
    fetch(request) {
      request.signal.addEventListener("abort", () => aborted.resolve());
      const stream = new ReadableStream({
        pull(controller) {
          pulled++;
          controller.enqueue(new Uint8Array(64 * 1024));
        },
        cancel: () => cancelled.resolve(),
      });
      return new Response(stream);
    },
  });
  const socket = rig.connect();
  socket.pause();
  socket.write(get());
  await stalls(() => pulled);
  expect(pulled).toBeLessThan(100);
  socket.destroy();
  await cancelled.promise;
  await aborted.promise;
  expect(rig.errors).toEqual([]);
});

test("a client that leaves aborts request.signal while the app still thinks", async () => {
  const started = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  const rig = serve({
    async fetch(request) {
      request.signal.addEventListener("abort", () => aborted.resolve());
      started.resolve();
      await aborted.promise;
      throw new Error("too late to matter");
    },
  });
  const client = rig.parent.connectDescriptor(PORT);
  writeSync(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
  await started.promise;
  // The unread "100 Continue" makes this close a reset.
  closeDescriptor(client);
  await aborted.promise;
  await rig.served.close();
  expect(rig.errors).toEqual([]);
});

test("a client that ended its side may be gone: the app is told, and its answer still sent", async () => {
  const rig = serve({
    async fetch(request) {
      const body = await request.text();
      // Turns of the event loop in which the client's end arrives.
      for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
      return new Response(`${body.toUpperCase()} ${request.signal.aborted}`);
    },
  });
  const socket = rig.connect();
  socket.end("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  expect(await readAll(socket)).toContain("ABC true");
});

test("what an app rejects with because the client left is not logged", async () => {
  const rig = serve({
    fetch: (request) =>
      new Promise((_, reject) =>
        request.signal.addEventListener("abort", () => reject(request.signal.reason)),
      ),
  });
  const socket = rig.connect();
  socket.end("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 500 /);
  expect(rig.errors).toEqual([]);
});

test("a connection kept alive keeps nothing of its requests", async () => {
  const rig = serve({ fetch: () => new Response("x") });
  const socket = rig.connect();
  for (let i = 0; i < 20; i++) {
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(socket, "data");
  }
  // Node warns of a leak, once, at the eleventh listener of a kind.
  expect(warnings).toEqual([]);
});

test("a connection serves many requests, also when a body was left unread", async () => {
  const rig = serve({ fetch: (request) => new Response(new URL(request.url).pathname) });
  const socket = rig.connect();
  const body = "x".repeat(300_000);
  const post = (path: string) =>
    `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  socket.write(post("/one") + post("/two") + get("/three"));
  const answer = await readAll(socket);
  expect(answer.match(/\/(one|two|three)/g)).toEqual(["/one", "/two", "/three"]);
});

test("a body read in part does not hold up the next request", async () => {
  const rig = serve({
    async fetch(request) {
      const first = await request.body?.getReader().read();
      return new Response(String(first?.done ?? true));
    },
  });
  const socket = rig.connect();
  socket.write(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n${"x".repeat(900_000)}${get()}`);
  const answer = await readAll(socket);
  expect(answer.match(/HTTP\/1.1 200/g)).toHaveLength(2);
});

test("an app that reads on after its response learns that the rest was dropped", async () => {
  const outcome = Promise.withResolvers<unknown>();
  const rig = serve({
    fetch(request) {
      const reader = request.body?.getReader();
      const readToEnd = async () => {
        while (!(await reader?.read())?.done);
      };
      setTimeout(() => readToEnd().then(outcome.resolve, outcome.resolve));
      return new Response("done");
    },
  });
  const socket = rig.connect();
  socket.write(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n${"x".repeat(900_000)}`);
  expect(await outcome.promise).toMatchObject({ message: expect.stringContaining("dropped") });
});

test.each([
  [
    "throws",
    () => {
      throw new Error("secret");
    },
  ],
  [
    "rejects",
    async () => {
      throw new Error("secret");
    },
  ],
  ["returns no Response", () => "text" as unknown as Response],
  [
    "returns a used Response",
    async () => {
      const used = new Response("x");
      await used.text();
      return used;
    },
  ],
  ["sets a header that HTTP cannot carry", () => new Response("x", { headers: { "x-a": "\x01" } })],
])("an app that %s is a 500 without a word of why; the log has it", async (_, fetch) => {
  const rig = serve({ fetch });
  const answer = await exchange(rig, get());
  expect(answer).toMatch(/^HTTP\/1\.1 500 Internal Server Error\r\n/);
  expect(answer).not.toContain("secret");
  expect(rig.errors).toHaveLength(1);
});

const bytes = (text: string) => new TextEncoder().encode(text);
const failing = (...chunks: unknown[]) =>
  new ReadableStream({
    pull(controller) {
      const chunk = chunks.shift();
      if (chunk === undefined) throw new Error("secret");
      controller.enqueue(chunk);
    },
  });

test.each([
  ["fails", () => new Response(failing(bytes("part")))],
  ["yields what is no bytes", () => new Response(failing(bytes("part"), 7))],
  [
    "is longer than its content-length",
    () => new Response("too long", { headers: { "content-length": "3" } }),
  ],
  ["is shorter than its content-length", () => new Response("short", { headers: { "content-length": "9" } })],
])("a body that %s ends the connection", async (_, fetch) => {
  const rig = serve({ fetch });
  const socket = rig.connect();
  socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const answer = await readAll(socket);
  expect(answer).not.toMatch(/0\r\n\r\n$/);
  expect(answer).not.toContain("secret");
  expect(rig.errors).toHaveLength(1);
});

test.each([
  ["no Host", "GET / HTTP/1.1\r\n\r\n"],
  ["a Host that moves the path", "GET / HTTP/1.1\r\nHost: x/y?\r\n\r\n"],
  ["a Host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"],
  ["a port that is none", "GET / HTTP/1.1\r\nHost: x:99999\r\n\r\n"],
  ["a target that is no URL", "GET nonsense HTTP/1.1\r\nHost: x\r\n\r\n"],
  ["TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"],
  ["two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
  [
    "a length and chunks",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
  ],
  ["garbage", "\x16\x03\x01\x02\0\r\n\r\n"],
])("a bad request is a 400 and never reaches the app: %s", async (_, text) => {
  const fetch = vi.fn(() => new Response());
  const rig = serve({ fetch });
  const socket = rig.connect();
  socket.end(text, "latin1");
  expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 400 /);
  expect(fetch).not.toHaveBeenCalled();
});

test.each([
  [
    "an absolute target",
    "GET http://other.example/p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "http://other.example/p",
  ],
  ["two slashes", get("//evil.example/p"), "http://x//evil.example/p"],
  ["an IPv6 host", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n", "http://[::1]:8080/"],
])("the URL of %s", async (_, text, url) => {
  const rig = serve({ fetch: (request) => new Response(request.url) });
  expect(await exchange(rig, text)).toContain(url);
});

test("clients that break off anywhere cost one connection each", async () => {
  const rig = serve({ fetch: async (request) => new Response(await request.text()) });
  const whole = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n0123456789";
  for (let length = 0; length <= whole.length; length++) {
    const socket = rig.connect();
    socket.write(whole.slice(0, length));
    await new Promise((resolve) => setImmediate(resolve));
    socket.destroy();
  }
  expect(await exchange(rig, get())).toMatch(/^HTTP\/1\.1 200/);
});

test("an upgrade reaches the app, and what the client does to it no one else", async () => {
  const rig = serve({
    fetch: () => new Response("plain"),
    upgrade(request, socket, head) {
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: ${request.headers.upgrade}\r\nConnection: Upgrade\r\n\r\n`,
      );
      socket.write(head);
      socket.pipe(socket);
    },
  });
  const socket = rig.connect();
  socket.write("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhead,");
  socket.end("tail");
  expect(await readAll(socket)).toMatch(/101 Switching Protocols\r\nUpgrade: echo\r\n.*head,tail$/s);
});

test("an upgrade that fails closes the connection and is logged", async () => {
  const rig = serve({
    fetch: () => new Response("plain"),
    upgrade: async () => {
      throw new Error("no");
    },
  });
  const answer = await exchange(
    rig,
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n",
  );
  expect(answer).toBe("");
  expect(rig.errors).toHaveLength(1);
});

test("without an upgrade handler the request is answered as any other", async () => {
  const rig = serve({ fetch: () => new Response("plain") });
  const answer = await exchange(rig, get("/", "Upgrade: echo\r\nConnection: Upgrade\r\n"));
  expect(answer).toContain("plain");
});

test("closing answers what is in flight, ends what is idle, accepts no more", async () => {
  let respond: (response: Response) => void = () => {};
  const rig = serve({
    fetch: (request) =>
      request.url.endsWith("/slow")
        ? new Promise((resolve) => {
            respond = resolve;
          })
        : new Response("quick"),
  });
  const idle = rig.connect();
  idle.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(idle, "data");
  const busy = rig.connect();
  busy.write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  await once(rig.connect().end(get()), "data");
  const closed = rig.served.close();
  await readAll(idle);
  expect(() => rig.parent.connect(PORT)).toThrow("ECONNRESET");
  respond(new Response("done"));
  expect(await readAll(busy)).toContain("done");
  await closed;
});
