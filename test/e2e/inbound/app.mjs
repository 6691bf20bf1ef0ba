/** Guest half of inbound.test.ts: servers as any program has them. Nothing in here knows of enclaves. */
import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { WebSocketServer } from "ws";
import { certificate, key } from "../../runtime/certificate.ts";
import { Echo, grpc } from "./service.ts";

const counts = { sent: 0, closes: 0 };

const app = express();
app.use(express.json());
app.get("/", (request, response) => response.json({ ip: request.ip, port: request.socket.remotePort }));
app.post("/", (request, response) => response.json(request.body));
app.get("/counts", (_, response) =>
  server.getConnections((_, connections) =>
    response.json({ ...counts, connections, rss: process.memoryUsage().rss }),
  ),
);
const server = app.listen(8001);
await once(server, "listening");

const swift = fastify();
swift.get("/:name", async (request) => ({ name: request.params.name, ip: request.ip }));
await swift.listen({ port: 8002, host: "0.0.0.0" });

const sockets = new WebSocketServer({ port: 8003, host: "0.0.0.0" });
sockets.on("connection", (socket, request) => {
  socket.send(`hello ${request.socket.remoteAddress}`);
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});

const answer = (stream) => {
  stream.respond({ ":status": 200 });
  stream.write(`from ${stream.session.socket.remoteAddress} `);
  stream.pipe(stream);
};
http2.createServer().on("stream", answer).listen(8004);
http2.createSecureServer({ key, cert: certificate }).on("stream", answer).listen(8005);

const calls = new grpc.Server();
calls.addService(Echo.service, {
  Unary: (call, done) => done(null, { text: call.request.text, peer: call.getPeer() }),
  Down: (call) => {
    for (const text of call.request.text) call.write({ text });
    call.end();
  },
  Up: (call, done) => {
    let text = "";
    call.on("data", (message) => (text += message.text)).on("end", () => done(null, { text }));
  },
  Both: (call) => call.on("data", (message) => call.write(message)).on("end", () => call.end()),
});
await new Promise((resolve, reject) =>
  calls.bindAsync("0.0.0.0:8006", grpc.ServerCredentials.createInsecure(), (error) =>
    error ? reject(error) : resolve(),
  ),
);

/** By its first byte: `S` sends without end, `D` is deaf, `B` breaks off, `E` echoes. */
net
  .createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {}).on("close", () => counts.closes++);
    socket.once("readable", () => {
      const first = String(socket.read(1));
      if (first === "E") socket.pipe(socket);
      if (first === "B") socket.write("half a", () => socket.destroy());
      if (first !== "S") return;
      const chunk = Buffer.alloc(65536);
      const send = () => {
        let more = true;
        while (more) {
          more = socket.write(chunk);
          counts.sent += chunk.length;
        }
      };
      socket.on("drain", send).resume();
      send();
    });
  })
  .listen(8007);

const hono = new Hono();
hono.get("/", (context) => context.text("hono"));
hono.post("/upper", async (context) => context.text((await context.req.text()).toUpperCase()));
export default hono;
