/** The Unix socket to vsock ports: its greeting in any pieces, what it refuses, and bytes both ways behind it. */
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Duplex, duplexPair } from "node:stream";
import { text } from "node:stream/consumers";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { VsockStream } from "../../launcher/device.ts";
import { serveVsockSocket, type VsockSocketServer } from "../../launcher/socket.ts";

const directory = mkdtempSync(join(tmpdir(), "cloister-socket-"));
const path = join(directory, "vsock");
let server: VsockSocketServer;

/** An enclave that echoes on port 7 and has no other. */
async function dial(port: number): Promise<VsockStream> {
  if (port !== 7) throw Object.assign(new Error("connect"), { code: "ECONNRESET" });
  const [ours, guests] = duplexPair({ allowHalfOpen: true }) as [Duplex, Duplex];
  guests.pipe(guests);
  return Object.assign(ours, { remoteCid: 16, remotePort: port });
}

beforeAll(async () => {
  server = await serveVsockSocket(path, dial);
});

afterAll(() => {
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

async function open(): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

test("is for this user alone, and is gone when closed", async () => {
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const other = join(directory, "other");
  const another = await serveVsockSocket(other, dial);
  another.close();
  await expect.poll(() => existsSync(other)).toBe(false);
});

test("answers OK, then relays until both sides ended, however the greeting was cut", async () => {
  const whole = "CONNECT 7\nbytes of the app";
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: whole.length - 1 }), { maxLength: 4 }),
      async (cuts) => {
        const socket = await open();
        const answer = text(socket);
        const places = [0, ...cuts.sort((a, b) => a - b), whole.length];
        for (const [index, end] of places.entries()) socket.write(whole.slice(places[index - 1] ?? 0, end));
        socket.end();
        expect(await answer).toBe("OK 7\nbytes of the app");
      },
    ),
    { numRuns: 20 },
  );
});

test.each([
  "CONNECT 8\n",
  "CONNECT x\n",
  "CONNECT 4294967295\n",
  "GET / HTTP/1.1\r\n",
  "\n",
  "x".repeat(100),
])("%j is closed without an answer", async (line) => {
  const socket = await open();
  socket.write(line);
  const answer: string[] = [];
  socket.on("data", (chunk) => answer.push(String(chunk)));
  await once(socket, "end");
  socket.destroy();
  expect(answer).toEqual([]);
});

test("a path that is taken is an error, and what was there stays", async () => {
  await expect(serveVsockSocket(path, dial)).rejects.toMatchObject({ code: "E_SOCKET_UNUSABLE" });
  expect(existsSync(path)).toBe(true);
});
