/**
 * A fetch app over one VM: HTTP with streaming both ways, hundreds of connections, what Node
 * finds in there, logs, and SIGTERM at the end.
 */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { Agent, request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type BuiltApp, buildApp, type Running, start } from "./enclave.ts";

// ---------------------------------------------------------------- guest half

const APP = `
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { lookup } from "node:dns/promises";
import { connect } from "node:net";
import { Worker } from "node:worker_threads";
import greeting from "./greeting.json" with { type: "json" };
import { isDebug } from "cloister/runtime";

const started: string = await Promise.resolve("top-level await");
let waiting = 0;
let aborted = 0;

const routes: Record<string, (request: Request, url: URL) => Response | Promise<Response>> = {
  "/hello": () => Response.json({ ...greeting, started, debug: isDebug(), mode: process.env.MODE }),
  "/echo": (request) => new Response(request.body, { headers: { "x-method": request.method } }),
  "/hash": async (request) => {
    const hash = createHash("sha256");
    for await (const chunk of request.body ?? []) hash.update(chunk);
    return new Response(hash.digest("hex"));
  },
  "/bytes": (_, url) => {
    let left = Number(url.searchParams.get("n"));
    return new Response(new ReadableStream({
      pull(controller) {
        if (left <= 0) return controller.close();
        const size = Math.min(left, 65536);
        left -= size;
        controller.enqueue(new Uint8Array(size).fill(97));
      },
    }));
  },
  "/events": () => new Response(new ReadableStream({
    async start(controller) {
      for (let i = 0; i < 3; i++) {
        controller.enqueue(new TextEncoder().encode("data: " + i + "\\n\\n"));
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      controller.close();
    },
  }), { headers: { "content-type": "text/event-stream" } }),
  "/cookies": () => {
    const headers = new Headers();
    headers.append("set-cookie", "a=1");
    headers.append("set-cookie", "b=2");
    return new Response(null, { status: 204, headers });
  },
  "/throw": () => { throw new Error("the secret reason"); },
  "/wait": (request) => new Promise((resolve) => {
    waiting++;
    request.signal.addEventListener("abort", () => { aborted++; resolve(new Response(null)); });
  }),
  "/counts": () => Response.json({ waiting, aborted }),
  "/world": async () => {
    const worker = new Worker("require('node:worker_threads').parentPort.postMessage(process.pid)", { eval: true });
    const workerPid = await new Promise((resolve) => worker.once("message", resolve));
    const server = createServer((_, response) => response.end("looped")).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    const looped = await (await fetch("http://localhost:" + port)).text();
    server.close();
    server.closeAllConnections();
    writeFileSync("/tmp/file", "written");
    const wasm = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
    const child = spawnSync(process.execPath, ["-p", "6 * 7"], { encoding: "utf8" });
    return Response.json({
      pid: process.pid, workerPid, looped, wasm: wasm instanceof WebAssembly.Module,
      file: readFileSync("/tmp/file", "utf8"), child: child.stdout.trim(), status: child.status,
      localhost: (await lookup("localhost")).address, cwd: process.cwd(), home: process.env.HOME,
      rss: process.memoryUsage().rss, mounts: readFileSync("/proc/mounts", "utf8"),
    });
  },
};

export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    return (await routes[url.pathname]?.(request, url)) ?? new Response("no such route", { status: 404 });
  },
  upgrade(request: { url?: string }, socket: import("node:net").Socket) {
    socket.write("HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: raw\\r\\n\\r\\n");
    socket.pipe(socket);
  },
};

process.on("SIGTERM", () => {
  console.log("SIGTERM seen");
  process.exit(42);
});
console.log("a line on stdout");
console.error("a line on stderr");
`;

// ----------------------------------------------------------------- host half

let app: BuiltApp;
let running: Running;
let agent: Agent;

beforeAll(async () => {
  app = await buildApp(
    { "app.ts": APP, "greeting.json": '{"hello":"world"}' },
    { memory: "256M", env: { MODE: "measured" } },
  );
  running = await start(app.eifPath);
  await running.enclave.ready;
  agent = new Agent({ keepAlive: true });
});

afterAll(async () => {
  agent?.destroy();
  await running?.[Symbol.asyncDispose]();
  app?.remove();
});

afterEach(({ task }) => {
  if (task.result?.state === "fail") console.error(running.story());
});

const get = (path: string) => fetch(`${running.url}${path}`);

describe("HTTP", () => {
  test("answers, with JSON import, top-level await, measured environment", async () => {
    const response = await get("/hello");
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      hello: "world",
      started: "top-level await",
      debug: false,
      mode: "measured",
    });
    expect((await get("/nowhere")).status).toBe(404);
  });

  test("keeps a connection alive over requests", async () => {
    const sockets = new Set<Socket>();
    for (let i = 0; i < 20; i++) {
      const request = httpRequest(`${running.url}/hello`, { agent });
      request.on("socket", (socket) => sockets.add(socket));
      request.end();
      const [response] = await once(request, "response");
      await text(response);
    }
    expect(sockets.size).toBe(1);
  });

  test("streams a 32 MiB upload through and back, intact", async () => {
    const body = randomBytes(32 << 20);
    const digest = createHash("sha256").update(body).digest("hex");
    const uploaded = await fetch(`${running.url}/hash`, { method: "POST", body });
    expect(await uploaded.text()).toBe(digest);
    const echoed = await fetch(`${running.url}/echo`, { method: "PUT", body: body.subarray(0, 4 << 20) });
    expect(echoed.headers.get("x-method")).toBe("PUT");
    expect(Buffer.from(await echoed.arrayBuffer()).equals(body.subarray(0, 4 << 20))).toBe(true);
  });

  test("a reader that stalls does not fill the enclave's memory", async () => {
    const { hostname, port } = new URL(running.url);
    const stalled = connect(Number(port), hostname);
    stalled.write("GET /bytes?n=1000000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(stalled, "readable");
    const { rss } = (await (await get("/world")).json()) as { rss: number };
    expect(rss).toBeLessThan(180 << 20);
    stalled.destroy();
    expect((await get("/hello")).status).toBe(200);
  });

  test("sends events as they come", async () => {
    const response = await get("/events");
    expect(await response.text()).toBe("data: 0\n\ndata: 1\n\ndata: 2\n\n");
  });

  test("keeps several cookies apart and 204 without a body", async () => {
    const response = await get("/cookies");
    expect([response.status, response.headers.getSetCookie()]).toEqual([204, ["a=1", "b=2"]]);
  });

  test("an exception is a 500 that tells the client nothing, and the log the source line", async () => {
    const response = await get("/throw");
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain("secret");
    const line = APP.split("\n").findIndex((text) => text.includes("the secret reason")) + 1;
    await expect.poll(() => running.logs().join("\n"), { timeout: 20_000 }).toContain(`app.ts:${line}`);
  });

  test("a client that goes away aborts its request", async () => {
    const controller = new AbortController();
    const request = fetch(`${running.url}/wait`, { signal: controller.signal });
    const counts = async () => (await get("/counts")).json();
    await expect.poll(counts, { timeout: 60_000 }).toEqual({ waiting: 1, aborted: 0 });
    controller.abort();
    await expect(request).rejects.toThrow();
    await expect.poll(counts, { timeout: 60_000 }).toEqual({ waiting: 1, aborted: 1 });
  });

  test("200 connections at once", async () => {
    const answers = await Promise.all(
      Array.from({ length: 200 }, async () => {
        const request = httpRequest(`${running.url}/hello`, { agent: false });
        request.end();
        const [response] = await once(request, "response");
        await text(response);
        return response.statusCode;
      }),
    );
    expect(answers).toEqual(Array.from({ length: 200 }, () => 200));
  });

  test("half-close: a request sent whole and ended is answered", async () => {
    const { hostname, port } = new URL(running.url);
    const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    socket.end("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect(await text(socket)).toContain('"hello":"world"');
  });

  test("an upgrade hands over the raw stream", async () => {
    const { hostname, port } = new URL(running.url);
    const socket = connect(Number(port), hostname);
    socket.write("GET /raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    const chunks: string[] = [];
    socket.on("data", (chunk) => chunks.push(String(chunk)));
    await expect.poll(() => chunks.join(""), { timeout: 20_000 }).toContain("101 Switching Protocols");
    socket.write("ping");
    await expect.poll(() => chunks.join(""), { timeout: 20_000 }).toMatch(/\r\n\r\nping$/);
    socket.destroy();
  });
});

test("inside it is an ordinary Linux for Node", async () => {
  const world = (await (await get("/world")).json()) as Record<string, unknown>;
  expect(world).toMatchObject({
    pid: 1,
    workerPid: 1,
    looped: "looped",
    wasm: true,
    file: "written",
    child: "42",
    status: 0,
    localhost: "127.0.0.1",
    cwd: "/app",
  });
  for (const mount of ["/proc", "/sys", "/dev", "/tmp", "/run"]) expect(world.mounts).toContain(` ${mount} `);
});

test("a refused vsock port is refused at once", async () => {
  await expect(running.enclave.connect(4321)).rejects.toMatchObject({ code: "ECONNRESET" });
});

test("the app's output reaches the parent, and nothing of it the console", async () => {
  expect(running.logs()).toEqual(expect.arrayContaining(["a line on stdout", "a line on stderr"]));
  expect(running.console()).not.toContain("a line on");
  await expect(running.enclave.console()).rejects.toMatchObject({ code: "ECONNRESET" });
});

test("asked to stop, the app sees SIGTERM and its status comes back", async () => {
  const report = await running.enclave.stop({ deadlineMs: 30_000 });
  expect(report).toMatchObject({ kind: "app", status: 42 });
  expect(running.logs()).toContain("SIGTERM seen");
});
