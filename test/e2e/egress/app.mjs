/**
 * Guest half of egress.test.ts: each path is one use of the network, as any program has it, and its answer is what came
 * of it as JSON. Nothing in here knows of enclaves.
 */
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import dns from "node:dns";
import {
  lookup,
  Resolver,
  resolve4,
  resolve6,
  resolveAny,
  resolveCaa,
  resolveCname,
  resolveMx,
  resolveNs,
  resolveSoa,
  resolveSrv,
  resolveTxt,
  reverse,
} from "node:dns/promises";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { text } from "node:stream/consumers";
import tls from "node:tls";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { DecryptCommand, EncryptCommand, KMSClient } from "@aws-sdk/client-kms";
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import axios from "axios";
import { Redis } from "ioredis";
import pg from "pg";
import { Agent, request as undiciRequest } from "undici";
import { createPublicClient, http as rpc } from "viem";
import WebSocket from "ws";

const body = (stream) =>
  new Promise((resolve, reject) => {
    let all = "";
    stream.setEncoding("utf8");
    stream.on("data", (chunk) => {
      all += chunk;
    });
    stream.on("end", () => resolve(all));
    stream.on("error", reject);
  });

const get = (module, url, options = {}) =>
  new Promise((resolve, reject) => {
    module.get(url, options, (response) => body(response).then(resolve, reject)).on("error", reject);
  });

const dial = (options) =>
  new Promise((resolve, reject) => {
    const socket = net.connect({ allowHalfOpen: true, ...options });
    socket.on("error", reject);
    socket.on("connect", () => {
      socket.write("hello");
      resolve(socket);
    });
  });

/** Sends "hello", ends, and returns what comes back. */
const echo = async (options) => {
  const socket = await dial(options);
  socket.end();
  return await body(socket);
};

const timed = async (work) => {
  const start = performance.now();
  const outcome = await work.then(String, (error) => error.code ?? error.name);
  return { outcome, seconds: Math.round((performance.now() - start) / 1000) };
};

const inWorker = (options) =>
  new Promise((resolve, reject) => {
    const code = `fetch("https://tls.test/worker").then((r) => r.text()).then(
      (t) => require("node:worker_threads").parentPort.postMessage(t));`;
    new Worker(code, { eval: true, ...options }).on("message", resolve).on("error", reject);
  });

/** A download that somebody may cut: bytes so far, and how it ended. */
const download = { bytes: 0, ended: Promise.resolve("not begun") };

const routes = {
  "download-begin": async () => {
    const { body: stream } = await fetch("http://web.test/trickle");
    const reader = stream.getReader();
    download.bytes += (await reader.read()).value.length;
    const rest = async () => {
      for (let part = await reader.read(); !part.done; part = await reader.read())
        download.bytes += part.value.length;
      return "complete";
    };
    download.ended = rest().catch((error) => error.cause?.code ?? error.code);
    return download.bytes;
  },
  "download-end": () => download.ended,
  fetch: async () => (await fetch("http://web.test/fetch")).text(),
  "fetch-tls": async () => (await fetch("https://tls.test/fetch")).text(),
  "fetch-untrusted": async () => (await fetch("https://untrusted.test/")).text(),
  "fetch-post": async () => {
    const sent = "x".repeat(1_000_000);
    const response = await fetch("http://web.test/length", { method: "POST", body: sent });
    return await response.text();
  },
  "fetch-big": async () => (await (await fetch("http://web.test/big")).arrayBuffer()).byteLength,
  "fetch-many": async () => {
    const all = Array.from({ length: 100 }, async () => (await fetch("http://web.test/many")).text());
    return [...new Set(await Promise.all(all))];
  },
  "fetch-stalled": () => timed(fetch("http://web.test/stall", { signal: AbortSignal.timeout(1000) })),
  "fetch-trickle": async () => {
    const response = await fetch("http://web.test/trickle", { signal: AbortSignal.timeout(3500) });
    return await timed(response.text());
  },
  "fetch-denied": async () => (await fetch("https://evil.test/")).text(),
  "fetch-denied-port": async () => (await fetch("http://web.test:81/")).text(),
  "fetch-refused": async () => (await fetch("http://refused.test/")).text(),
  "fetch-metadata": async () => (await fetch("http://169.254.169.254/latest/")).text(),
  "fetch-reset": async () => (await fetch("http://reset.test/")).text(),
  "fetch-missing": async () => (await fetch("http://missing.invalid/")).text(),
  "fetch-loopback": async () => {
    const server = http.createServer((_, response) => response.end("private")).listen(0, "127.0.0.1");
    await once(server, "listening");
    const answer = await (await fetch(`http://localhost:${server.address().port}/`)).text();
    server.close();
    server.closeAllConnections();
    return answer;
  },

  "http-keepalive": async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const first = await get(http, "http://web.test/socket", { agent });
    const second = await get(http, "http://web.test/socket", { agent });
    agent.destroy();
    return first === second;
  },
  "http-timeout": () =>
    timed(
      new Promise((_, reject) => {
        const request = http.get("http://web.test/stall", { timeout: 1000 });
        request.on("timeout", () => request.destroy(Object.assign(new Error(), { code: "TIMED" })));
        request.on("error", reject);
      }),
    ),
  https: () => get(https, "https://tls.test/https"),

  net: () => echo({ host: "echo.test", port: 7 }),
  "net-wildcard": () => echo({ host: "a.b.sub.test", port: 4242 }),
  "net-ipv4": () => echo({ host: "10.99.0.5", port: 7 }),
  "net-ipv6": () => echo({ host: "2001:db8:0::1", port: 7 }),
  "net-single": () => echo({ host: "echo.test", port: 7, autoSelectFamily: false, family: 4 }),
  "net-lookup": () =>
    echo({
      host: "echo.test",
      port: 7,
      lookup: (_, __, done) => done(null, [{ address: "203.0.113.9", family: 4 }]),
    }),
  "net-by-address": async () => echo({ host: (await lookup("echo.test")).address, port: 7 }),
  "net-greeting": async () => body(await dial({ host: "greeting.test", port: 25 })),
  "net-options": async () => {
    const socket = await dial({ host: "echo.test", port: 7, noDelay: true, keepAlive: true });
    socket.setNoDelay(true).setKeepAlive(true, 1000).setTimeout(60_000);
    const { remoteAddress, remotePort, remoteFamily } = socket;
    socket.destroy();
    return { remoteAddress, remotePort, remoteFamily };
  },
  "net-reset": async () => {
    const socket = await dial({ host: "reset.test", port: 80 });
    return await body(socket);
  },
  "net-closed": async () => {
    const socket = await dial({ host: "echo.test", port: 7 });
    socket.resetAndDestroy();
    await once(socket, "close");
    return "closed";
  },
  "net-two": async (parameters) => {
    const socket = await dial({ host: "two.test", port: Number(parameters.get("port")) });
    const { remoteFamily } = socket;
    socket.end();
    return [remoteFamily, await body(socket)];
  },
  "net-abort": () => dial({ host: "dead.test", port: 7, signal: AbortSignal.timeout(500) }),
  "net-timeout": async () => {
    const socket = net.connect({ host: "dead.test", port: 7, timeout: 500 });
    await once(socket, "timeout");
    socket.destroy();
    return socket.connecting;
  },
  "net-denied": () => echo({ host: "10.99.0.6", port: 7 }),
  "net-abandoned": async () => {
    const socket = net.connect(7, "echo.test");
    socket.destroy();
    await once(socket, "close");
    return "closed";
  },
  tls: async () => {
    const socket = tls.connect({ host: "tls.test", port: 443, servername: "tls.test" });
    await once(socket, "secureConnect");
    socket.end("GET /tls HTTP/1.1\r\nHost: tls.test\r\nConnection: close\r\n\r\n");
    return [socket.authorized, (await body(socket)).split("\r\n\r\n").at(1)];
  },
  "tls-over-net": async () => {
    const socket = tls.connect({ socket: net.connect(443, "tls.test"), servername: "tls.test" });
    await once(socket, "secureConnect");
    socket.end("GET /upgraded HTTP/1.1\r\nHost: tls.test\r\nConnection: close\r\n\r\n");
    return [socket.authorized, (await body(socket)).split("\r\n\r\n").at(1)];
  },

  dns: async () => {
    const { address, family } = await lookup("echo.test");
    const all = await promisify(dns.lookup)("echo.test", { all: true });
    return {
      stable: all[0].address === address && (await resolve4("echo.test"))[0] === address,
      family,
      reverse: await reverse(address),
      resolver: (await new Resolver().resolve4("echo.test", { ttl: true }))[0].ttl,
      local: (await lookup("localhost", 4)).address,
    };
  },
  "dns-records": async () => {
    const name = "records.test";
    const [v4, v6] = [await resolve4(name), await resolve6(name)];
    const any = (await resolveAny(name)).map((record) => record.address ?? record.entries);
    return {
      families: [net.isIPv4(v4[0]), net.isIPv6(v6[0])],
      any: [any[0] === v4[0], any[1]],
      txt: await resolveTxt(name),
      mx: (await resolveMx(name)).map(({ exchange, priority }) => [exchange, priority]),
      srv: (await resolveSrv("_pg._tcp.records.test")).map((record) => [record.name, record.port]),
      ns: await resolveNs(name),
      soa: (await resolveSoa(name)).nsname,
      caa: (await resolveCaa(name)).map(({ issue }) => issue),
      cname: await resolveCname("alias.records.test"),
    };
  },
  "dns-none": () => resolveTxt("none.records.test"),
  "dns-denied": () => lookup("evil.test"),
  "dns-denied-resolve": () => resolveTxt("evil.test"),
  "dns-missing": () => lookup("missing.invalid"),

  ws: async () => {
    const socket = new WebSocket("ws://web.test/socket");
    await once(socket, "open");
    socket.send("over ws");
    const [data] = await once(socket, "message");
    socket.close();
    await once(socket, "close");
    return String(data);
  },
  undici: async () => {
    const dispatcher = new Agent({ connections: 1 });
    const { body: answer } = await undiciRequest("https://tls.test/undici", { dispatcher });
    const all = await text(answer);
    await dispatcher.close();
    return all;
  },
  axios: async () => (await axios.get("https://tls.test/axios")).data,
  pg: async () => {
    const client = new pg.Client({ host: "pg.test", port: 5432, user: "postgres", database: "postgres" });
    await client.connect();
    await client.query("CREATE TEMP TABLE t (n int)");
    await client.query("INSERT INTO t SELECT generate_series(1, 10000)");
    const { rows } = await client.query("SELECT sum(n)::int AS total, $1::text AS echoed FROM t", ["ä"]);
    await client.end();
    return rows[0];
  },
  ioredis: async () => {
    const redis = new Redis({ host: "redis.test", port: 6379 });
    await redis.set("key", "value");
    const values = await Promise.all([redis.get("key"), redis.incrby("n", 41), redis.incr("n")]);
    await redis.quit();
    return values;
  },
  s3: async () => {
    const client = new S3Client({
      region: "eu-central-1",
      endpoint: "https://tls.test/s3",
      forcePathStyle: true,
      credentials: { accessKeyId: "id", secretAccessKey: "secret" },
    });
    await client.send(new PutObjectCommand({ Bucket: "bucket", Key: "key", Body: "an object" }));
    const { Body } = await client.send(new GetObjectCommand({ Bucket: "bucket", Key: "key" }));
    client.destroy();
    return await Body.transformToString();
  },
  kms: async () => {
    const client = new KMSClient({
      region: "eu-central-1",
      endpoint: "https://tls.test/kms",
      credentials: { accessKeyId: "id", secretAccessKey: "secret" },
    });
    const Plaintext = Buffer.from("a secret");
    const { CiphertextBlob } = await client.send(new EncryptCommand({ KeyId: "alias/a", Plaintext }));
    const opened = await client.send(new DecryptCommand({ CiphertextBlob }));
    client.destroy();
    return [Buffer.from(CiphertextBlob).toString(), Buffer.from(opened.Plaintext).toString()];
  },
  viem: async () => {
    const client = createPublicClient({ transport: rpc("https://tls.test/rpc") });
    return [await client.getChainId(), String(await client.getBlockNumber())];
  },

  worker: () => inWorker({}),
  "worker-options": () => inWorker({ env: { A: "1" }, execArgv: ["--no-warnings"] }),
  child: async () => {
    const code = `fetch("https://tls.test/child").then((r) => r.text()).then(console.log)`;
    return (await promisify(execFile)(process.execPath, ["-e", code])).stdout.trim();
  },
  udp: async () => {
    const socket = createSocket("udp4");
    try {
      return await promisify(socket.send.bind(socket))("x", 53, "8.8.8.8");
    } finally {
      socket.close();
    }
  },
  "udp-loopback": async () => {
    const server = createSocket("udp4").bind(0, "127.0.0.1");
    await once(server, "listening");
    const client = createSocket("udp4");
    client.send("inside", server.address().port, "127.0.0.1");
    const [message] = await once(server, "message");
    server.close();
    client.close();
    return String(message);
  },
};

const describe = (error) => ({
  code: error.code,
  message: error.message,
  ...(error.cause && { cause: describe(error.cause) }),
});

export default {
  async fetch(request) {
    try {
      const { pathname, searchParams } = new URL(request.url);
      return Response.json({ value: (await routes[pathname.slice(1)](searchParams)) ?? null });
    } catch (error) {
      return Response.json({ error: describe(error) });
    }
  },
};
