/** Servers and clients inside the enclave; what leaves it: egress.test.ts. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import { type AddressInfo, createConnection, createServer } from "node:net";
import { text } from "node:stream/consumers";
import tls from "node:tls";
import type { Checks } from "./check.ts";
import { WebSocketServer } from "./ws.ts";

async function listening(server: { listen(port: number, host: string): unknown; address(): unknown }) {
  server.listen(0, "127.0.0.1");
  await once(server as never, "listening");
  return (server.address() as AddressInfo).port;
}

export const network: Checks = {
  "net: Unix sockets": async () => {
    const server = createServer((socket) => socket.pipe(socket)).listen("/tmp/check.sock");
    await once(server, "listening");
    const socket = createConnection("/tmp/check.sock");
    socket.end("over a path");
    assert.equal(await text(socket), "over a path");
    server.close();
  },
  "http: a server and a client of its own, streaming": async () => {
    const server = http.createServer((request, response) => request.pipe(response));
    const port = await listening(server);
    const request = http.request({ port, host: "127.0.0.1", method: "POST" });
    request.write("one ");
    request.end("two");
    const [response] = (await once(request, "response")) as [http.IncomingMessage];
    assert.equal(await text(response), "one two");
    server.close();
    server.closeAllConnections();
  },
  "http2: cleartext, many streams": async () => {
    const server = http2.createServer((_, response) => response.end("over h2"));
    const port = await listening(server);
    const session = http2.connect(`http://127.0.0.1:${port}`);
    const bodies = await Promise.all(Array.from({ length: 20 }, () => text(session.request().end())));
    assert.deepEqual(new Set(bodies), new Set(["over h2"]));
    session.close();
    server.close();
  },
  "tls: pre-shared keys, no certificate": async () => {
    const psk = Buffer.from("0123456789abcdef");
    const ciphers = "PSK+HIGH";
    const options = { ciphers, maxVersion: "TLSv1.2" } as const;
    const server = tls.createServer({ ...options, pskCallback: () => psk }, (socket) => socket.end("secret"));
    const port = await listening(server);
    const socket = tls.connect({
      ...options,
      port,
      host: "127.0.0.1",
      checkServerIdentity: () => undefined,
      pskCallback: () => ({ psk, identity: "me" }),
    });
    assert.equal(await text(socket), "secret");
    server.close();
  },
  "fetch: headers, bodies, forms": async () => {
    const server = http.createServer((request, response) => {
      response.setHeader("x-type", request.headers["content-type"] ?? "");
      request.pipe(response);
    });
    const port = await listening(server);
    const body = new FormData();
    body.set("file", new File(["content"], "a.txt"));
    const response = await fetch(`http://localhost:${port}/`, { method: "POST", body });
    assert.match(response.headers.get("x-type") ?? "", /^multipart\/form-data/);
    assert.match(await response.text(), /filename="a\.txt"[\s\S]*content/);
    server.close();
    server.closeAllConnections();
  },
  "WebSocket: the global client": async () => {
    const server = http.createServer();
    new WebSocketServer({ server }).on("connection", (peer) =>
      peer.on("message", (data) => peer.send(`${data}!`)),
    );
    const socket = new WebSocket(`ws://127.0.0.1:${await listening(server)}`);
    await once(socket, "open");
    socket.send("hello");
    const [event] = (await once(socket, "message")) as [MessageEvent];
    assert.equal(event.data, "hello!");
    socket.close();
    await once(socket, "close");
    server.close();
  },
};
