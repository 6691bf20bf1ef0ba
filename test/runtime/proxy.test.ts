/** Connections that begin with a PROXY header: who the client is, by every kind of server; and who is refused. */
import { once } from "node:events";
import { createServer as createHttp } from "node:http";
import { connect as connectHttp2, createServer as createHttp2 } from "node:http2";
import { createServer as createHttps } from "node:https";
import { createRequire } from "node:module";
import { createServer, type Server, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterEach, expect, test } from "vitest";
import { encodeProxyHeader } from "../../format/proxy.ts";
import { mirrorServers } from "../../runtime/listen.ts";
import { expectHeaders } from "../../runtime/proxy.ts";
import { createFetchServer, serveFetch } from "../../runtime/serve.ts";
import { certificate, key } from "./certificate.ts";
import { Parent, readAll } from "./parent.ts";

/** As far as it is used here: the package has no types. */
interface Express {
  get(
    path: string,
    handler: (request: { ip?: string }, response: { json(value: object): void }) => void,
  ): void;
  listen(port: number): Server;
}
const express = createRequire(import.meta.url)("express") as () => Express;

const DEADLINE_MS = 300;
const HEADER = encodeProxyHeader({
  source: { address: "192.0.2.7", port: 56324 },
  destination: { address: "198.51.100.1", port: 443 },
});
const GET = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

const said: string[] = [];
let parent = new Parent();
const guarded = () =>
  expectHeaders(
    (...args) => parent.listen(...args),
    (line) => said.push(line),
    DEADLINE_MS,
  );
let guard = guarded();
const listen: typeof guard = (...args) => guard(...args);
mirrorServers({ ports: [], onListening: () => {}, say: () => {}, listen });

const stack: { close(): unknown }[] = [];
afterEach(() => {
  for (const server of stack.splice(0)) server.close();
  said.length = 0;
  parent = new Parent();
  guard = guarded();
});

async function portOf(server: Server): Promise<number> {
  stack.push(server);
  // express listens already, and has not said so yet.
  await once(server.listening ? server : server.listen(0), "listening");
  return (server.address() as { port: number }).port;
}

/** A client behind a relay: the header, cut, and what the client sends, in the same packet as the header's end. */
function dial(port: number, text: string | Buffer, cut = 5): Socket {
  const socket = parent.connect(port);
  const rest = Buffer.concat([HEADER.subarray(cut), Buffer.from(text)]);
  socket.write(HEADER.subarray(0, cut), () => setImmediate(() => socket.write(rest)));
  return socket;
}

test.each([1, 15, 16, 17, 28])("express and node:http see the client, cut after %d bytes", async (cut) => {
  const app = express();
  app.get("/", (request, response) => response.json({ ip: request.ip ?? null }));
  expect(await readAll(dial(await portOf(app.listen(0)), GET, cut))).toContain('{"ip":"192.0.2.7"}');
  const server = createHttp(({ socket }, response) => {
    const { remoteAddress, remotePort, remoteFamily, localAddress, localPort } = socket;
    response.end(JSON.stringify({ remoteAddress, remotePort, remoteFamily, localAddress, localPort }));
  });
  const answer = await readAll(dial(await portOf(server), GET, cut));
  expect(JSON.parse(answer.split("\r\n\r\n")[1] ?? "")).toEqual({
    remoteAddress: "192.0.2.7",
    remotePort: 56324,
    remoteFamily: "IPv4",
    localAddress: "198.51.100.1",
    localPort: 443,
  });
});

test("TLS behind the header: the server's own socket shows the client", async () => {
  const server = createHttps({ key, cert: certificate }, ({ socket }, response) =>
    response.end(`from ${socket.remoteAddress}:${socket.remotePort}`),
  );
  const socket = parent.connect(await portOf(server));
  socket.write(HEADER);
  const secure = connectTls({ socket, ca: certificate, servername: "localhost" });
  secure.write(GET);
  expect(await readAll(secure)).toContain("from 192.0.2.7:56324");
});

test("HTTP/2 behind the header", async () => {
  const server = createHttp2(({ socket }, response) => response.end(`from ${socket.remoteAddress}`));
  const port = await portOf(server);
  const createConnection = () => {
    const socket = parent.connect(port);
    socket.write(HEADER);
    return socket;
  };
  const session = connectHttp2("http://localhost", { createConnection });
  const request = session.request({ ":path": "/" }).setEncoding("utf8");
  let text = "";
  for await (const chunk of request) text += chunk;
  session.close();
  expect(text).toBe("from 192.0.2.7");
});

test("HTTP/2 takes frames that came in the header's own packet", async () => {
  const socket = parent.connect(await portOf(createHttp2()));
  // RFC 9113 §3.4: the preface, and SETTINGS without any.
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  socket.write(Buffer.concat([HEADER, preface, Buffer.from("000000040000000000", "hex")]));
  let received = Buffer.alloc(0);
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk]);
    // The acknowledgement of ours: length 0, type 4, flag 1, stream 0.
    if (received.includes(Buffer.from("000000040100000000", "hex"))) break;
  }
  expect(received.length).toBeGreaterThan(9);
});

test("a fetch app's server", async () => {
  const served = serveFetch({ fetch: () => new Response("fetched") }, { port: 1, onError: () => {}, listen });
  stack.push(served);
  expect(await readAll(dial(1, GET))).toContain("fetched");
  expect(createFetchServer({ fetch: () => new Response() }, () => {}).listening).toBe(false);
});

test("a raw server gets what follows, to the byte, and the end", async () => {
  const port = await portOf(createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)));
  const socket = dial(port, "the app's own");
  socket.once("data", () => socket.end());
  expect(await readAll(socket)).toBe("the app's own");
});

test("a server that waits for 'readable' is told of what came with the header", async () => {
  const onConnection = (socket: Socket) => socket.once("readable", () => socket.end(`got ${socket.read(1)}`));
  const socket = parent.connect(await portOf(createServer({ allowHalfOpen: true }, onConnection)));
  socket.write(Buffer.concat([HEADER, Buffer.from("abc")]));
  expect(await readAll(socket)).toBe("got a");
});

test("a client that ends behind its header is heard to end", async () => {
  const onConnection = (socket: Socket) => socket.on("end", () => socket.end("ended")).resume();
  const socket = parent.connect(await portOf(createServer({ allowHalfOpen: true }, onConnection)));
  socket.end(HEADER);
  expect(await readAll(socket)).toBe("ended");
});

test("the sender's own connection has no address", async () => {
  const port = await portOf(createServer((socket) => socket.end(`from ${socket.remoteAddress}`)));
  const socket = parent.connect(port);
  socket.write(encodeProxyHeader(undefined));
  expect(await readAll(socket)).toBe("from undefined");
});

test.each([
  ["no header", GET, "signature: got 474554202f20485454502f31"],
  ["half a header", HEADER.subarray(0, 20), "no PROXY header within 0.3 s"],
  ["nothing", "", "no PROXY header within 0.3 s"],
  [
    "a length that would take memory",
    Buffer.concat([HEADER.subarray(0, 14), Buffer.from([255, 255])]),
    "length: got 65535",
  ],
])("%s: closed, and the app never sees it", async (_, bytes, reason) => {
  let seen = 0;
  const port = await portOf(createServer(() => seen++));
  const socket = parent.connect(port);
  socket.write(bytes);
  expect(await readAll(socket).catch(() => "")).toBe("");
  expect(said).toEqual([expect.stringContaining(reason)]);
  expect(seen).toBe(0);
});

test("one that leaves early is forgotten; refusals are told once a second", async () => {
  const port = await portOf(createServer());
  for (let n = 0; n < 50; n++)
    parent
      .connect(port)
      .on("error", () => {})
      .end("short")
      .resume();
  await expect.poll(() => said.length).toBe(1);
  expect(said[0]).toContain("closed before its PROXY header");
});
