import { once } from "node:events";
import { createServer as createHttp } from "node:http";
import { connect as connectHttp2, createServer as createHttp2 } from "node:http2";
import { createServer as createHttps } from "node:https";
import { createRequire } from "node:module";
import { connect, createServer, type Server, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterEach, expect, test, vi } from "vitest";
import { mirrorServers } from "../../runtime/listen.ts";
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

const said: string[] = [];
const listening: number[] = [];
const PORTS: number[] = [];
let parent = new Parent();
mirrorServers({
  ports: PORTS,
  onListening: (port) => listening.push(port),
  say: (line) => said.push(line),
  listen: (...args) => parent.listen(...args),
});

const stack: { close(): unknown }[] = [];
afterEach(() => {
  for (const server of stack.splice(0)) server.close();
  for (const array of [said, listening, PORTS]) array.length = 0;
  parent = new Parent();
});

async function listen<T extends Server>(server: T, host?: string): Promise<number> {
  stack.push(server);
  server.listen(0, host);
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

const GET = "GET /path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

test("a net server has its connections from TCP and from vsock alike", async () => {
  const server = createServer((socket) => socket.end("hi"));
  const port = await listen(server);
  expect(listening).toEqual([port]);
  expect(await readAll(parent.connect(port))).toBe("hi");
  expect(await readAll(connect(port))).toBe("hi");
});

test("an HTTP server serves them, keeps them alive, and closes idle ones as it closes", async () => {
  const server = createHttp((request, response) => response.end(request.url));
  const client = parent.connect.bind(parent);
  const port = await listen(server);
  const socket = client(port);
  socket.write("GET /one HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(String((await once(socket, "data"))[0])).toContain("/one");
  socket.write("GET /two HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(String((await once(socket, "data"))[0])).toContain("/two");
  const closed = once(server, "close");
  server.close();
  await readAll(socket);
  await closed;
});

test("express", async () => {
  const app = express();
  app.get("/path", (request, response) => response.json({ ip: request.ip ?? null }));
  const server = app.listen(0);
  stack.push(server);
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const socket = parent.connect(port);
  socket.write(GET);
  expect(await readAll(socket)).toContain('{"ip":null}');
});

test("TLS ends in the server", async () => {
  const server = createHttps({ key, cert: certificate }, (_, response) => response.end("secure"));
  const port = await listen(server);
  const socket = connectTls({ socket: parent.connect(port), ca: certificate, servername: "localhost" });
  socket.write(GET);
  expect(await readAll(socket)).toContain("secure");
});

test("HTTP/2", async () => {
  const server = createHttp2((_, response) => response.end("two"));
  const port = await listen(server);
  const session = connectHttp2("http://localhost", { createConnection: () => parent.connect(port) });
  const request = session.request({ ":path": "/" });
  request.setEncoding("utf8");
  let text = "";
  for await (const chunk of request) text += chunk;
  session.close();
  expect(text).toBe("two");
});

test("connections count: getConnections, maxConnections with 'drop', and close() waits for them", async () => {
  const server = createServer();
  const port = await listen(server);
  server.maxConnections = 1;
  const kept = parent.connect(port);
  const count = await new Promise((resolve) =>
    server.getConnections((_, connections) => resolve(connections)),
  );
  expect(count).toBe(1);
  const dropped = once(server, "drop");
  await readAll(parent.connect(port));
  await dropped;
  let isClosed = false;
  server.on("close", () => {
    isClosed = true;
  });
  server.close();
  await new Promise((resolve) => setImmediate(resolve));
  expect(isClosed).toBe(false);
  kept.destroy();
  await vi.waitFor(() => expect(isClosed).toBe(true));
});

test.each([
  ["not half-open unless the server allows it", false, ""],
  ["half-open where it does", true, "late"],
])("connections are %s", async (_, allowHalfOpen, expected) => {
  const server = createServer({ allowHalfOpen }, (socket: Socket) => {
    socket.resume();
    socket.on("end", () => setImmediate(() => socket.writable && socket.end("late")));
  });
  const port = await listen(server);
  expect(await readAll(parent.connect(port).end())).toBe(expected);
});

test("a closed server is unreachable at once, and can listen again", async () => {
  const server = createServer((socket) => socket.end("hi"));
  const port = await listen(server);
  const closed = once(server, "close");
  server.close();
  expect(() => parent.connect(port)).toThrow("ECONNRESET");
  await closed;
  const again = await listen(server);
  expect(await readAll(parent.connect(again))).toBe("hi");
});

test("a listen() that failed and is tried again is mirrored once", async () => {
  const first = createServer();
  const port = await listen(first);
  const second = createServer((socket) => socket.end("second"));
  second.listen(port);
  await once(second, "error");
  const other = await listen(second);
  expect(listening).toEqual([port, other]);
  expect(await readAll(parent.connect(other))).toBe("second");
});

test("a server on the loopback alone stays private, unless its port is configured", async () => {
  const server = createServer();
  const port = await listen(server, "127.0.0.1");
  expect(() => parent.connect(port)).toThrow("ECONNRESET");
  expect(said).toEqual([expect.stringContaining(`127.0.0.1:${port} is private`)]);
  server.close();
  await once(server, "close");
  PORTS.push(port);
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  expect(listening).toEqual([port]);
});

test("a server on a port that the configuration does not list is told of the listed ones", async () => {
  PORTS.push(8080);
  const port = await listen(createServer());
  expect(said).toEqual([
    `listening on port ${port}, and "ports" lists 8080: nothing is published on ${port}`,
  ]);
});

test("a vsock port that is taken is the server's error, and nothing listens", async () => {
  const server = createServer();
  const taken = parent;
  const listenOnAny = taken.listen;
  parent = { listen: () => listenOnAny({ port: 1 }, () => {}) } as unknown as Parent;
  taken.listen({ port: 1 }, () => {});
  server.listen(0);
  const [error] = await once(server, "error");
  expect(error).toMatchObject({ code: "EADDRINUSE" });
  expect(server.listening).toBe(false);
});

test("a server on a Unix socket is left alone", async () => {
  const server = createServer();
  stack.push(server);
  server.listen(`\0cloister-${process.pid}`);
  await once(server, "listening");
  expect(listening).toEqual([]);
});
