/** The server of `--health-port`, alone: what it answers, and what it refuses. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { HealthReport } from "../../launcher/health.ts";
import { METRICS_TYPE } from "../../launcher/metrics.ts";
import { type ProbeServer, serveProbes } from "../../launcher/probe.ts";

let report: HealthReport;
let server: ProbeServer;
beforeEach(async () => {
  report = { condition: "ready", forMs: 0, alive: true, ready: true };
  server = await serveProbes({ port: 0 }, { report: () => report, metrics: () => "# metrics ü\n" });
});
afterEach(() => server[Symbol.asyncDispose]());

const ask = (path: string, method = "GET") => fetch(`http://127.0.0.1:${server.port}${path}`, { method });

/** What the server says to these bytes until it closes the connection, or resets it. */
async function say(bytes: string, more = ""): Promise<string> {
  const socket = connect(server.port, "127.0.0.1").on("error", () => {});
  socket.write(bytes);
  const trickle = setInterval(() => socket.write(more), 100);
  let said = "";
  socket.on("data", (chunk: Buffer) => {
    said += chunk;
  });
  await new Promise((resolve) => socket.once("close", resolve));
  clearInterval(trickle);
  return said;
}

describe("answers", () => {
  test.each<[Partial<HealthReport>, number, number, string]>([
    [{}, 200, 200, "ready\n"],
    [{ condition: "booting", ready: false }, 200, 503, "booting\n"],
    [{ condition: "stalled", forMs: 7_900, ready: false }, 200, 503, "stalled for 7 s\n"],
    [{ condition: "restarting", alive: false, ready: false }, 503, 503, "restarting\n"],
  ])("%o", async (changes, healthz, readyz, body) => {
    report = { ...report, ...changes };
    const [live, ready] = [await ask("/healthz"), await ask("/readyz")];
    expect([live.status, ready.status]).toEqual([healthz, readyz]);
    expect([await live.text(), await ready.text()]).toEqual([body, body]);
  });

  test("metrics, with their format", async () => {
    const response = await ask("/metrics?x=y");
    expect([response.status, response.headers.get("content-type")]).toEqual([200, METRICS_TYPE]);
    expect(await response.text()).toBe("# metrics ü\n");
  });

  test("HEAD, without a body", async () => {
    const response = await ask("/metrics", "HEAD");
    expect([response.status, response.headers.get("content-length")]).toEqual([200, "13"]);
    expect(await response.text()).toBe("");
    report = { ...report, alive: false };
    expect((await ask("/healthz", "HEAD")).status).toBe(503);
  });
});

describe("refuses", () => {
  test("what is not there", async () => {
    for (const path of ["/", "/healthz/", "/metrics/../x", "//metrics"])
      expect((await ask(path)).status).toBe(404);
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])("%s", async (method) => {
    const response = await ask("/healthz", method);
    expect([response.status, response.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });

  test.each<[string, string, RegExp]>([
    [
      "a second request on the connection",
      "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2),
      /^HTTP\/1.1 200(?!.*HTTP)/s,
    ],
    [
      "a long header",
      `GET /healthz HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`,
      /^HTTP\/1.1 431/,
    ],
    ["no HTTP", "\x16\x03\x01 what\r\n\r\n", /^HTTP\/1.1 400/],
    [
      "a body",
      `POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n${"y".repeat(9999)}`,
      /^HTTP\/1.1 405/,
    ],
  ])("%s", async (_, bytes, expected) => {
    expect(await say(bytes)).toMatch(expected);
  });

  test("connections that do not say what they want", { timeout: 30_000 }, async () => {
    const half = "GET /healthz HTTP/1.1\r\nx: ";
    const answers = await Promise.all([say(""), say(half), say(half, "y")]);
    for (const answer of answers) expect(answer).toMatch(/^(HTTP\/1.1 408|$)/);
  });

  test("more connections than probes need", async () => {
    const sockets = Array.from({ length: 64 }, () => connect(server.port, "127.0.0.1").on("error", () => {}));
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    expect(await say("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")).toBe("");
    for (const socket of sockets) socket.destroy();
    await expect.poll(async () => (await ask("/healthz")).status).toBe(200);
  });
});

test("a port that is taken is told", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port } = other.address() as { port: number };
  const source = { report: () => report, metrics: () => "" };
  await expect(serveProbes({ port }, source)).rejects.toMatchObject({
    code: "E_PORT_TAKEN",
    message: `127.0.0.1:${port}: got EADDRINUSE, expected a free port`,
  });
  other.close();
});

test("closes though a client stays", async () => {
  const socket = connect(server.port, "127.0.0.1").on("error", () => {});
  await once(socket, "connect");
  socket.write("GET /healthz HTTP/1.1\r\n");
  socket.resume();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await server[Symbol.asyncDispose]();
  await closed;
});
