/** Who connects without end: it gets no descriptor that the process needs for itself. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Socket } from "node:net";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { decodeStatus, encodeOutboundRequest } from "../../format/outbound.ts";
import { Quota } from "../../launcher/quota.ts";
import type { Place, Report } from "./crowd.ts";

/** Of which a quarter is kept; Node itself needs some 25. */
const LIMIT = 160;

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanups.splice(0).reverse()) await cleanUp();
});

describe("room", () => {
  test.each([
    // Two descriptors a relayed connection, four one that comes; 256 are kept, or a quarter.
    { limit: 1256, relayed: 498, beingSetUp: 0, hasRoom: true },
    { limit: 1256, relayed: 499, beingSetUp: 0, hasRoom: false },
    { limit: 1256, relayed: 0, beingSetUp: 249, hasRoom: true },
    { limit: 1256, relayed: 1, beingSetUp: 249, hasRoom: false },
    { limit: 100, relayed: 35, beingSetUp: 0, hasRoom: true },
    { limit: 100, relayed: 36, beingSetUp: 0, hasRoom: false },
    { limit: Number.POSITIVE_INFINITY, relayed: 1e9, beingSetUp: 1e9, hasRoom: true },
  ])(
    "$limit descriptors, $relayed relayed, $beingSetUp being set up: $hasRoom",
    ({ limit, hasRoom, ...load }) => {
      const quota = new Quota(limit);
      quota.share(() => load);
      expect(quota.hasRoom).toBe(hasRoom);
    },
  );

  test("is everyone's together, and who is gone takes none", () => {
    const quota = new Quota(100);
    const one = quota.share(() => ({ relayed: 18, beingSetUp: 0 }));
    const other = quota.share(() => ({ relayed: 18, beingSetUp: 0 }));
    const reasons: string[] = [];
    expect(one.admits((reason) => reasons.push(reason))).toBe(false);
    expect(one.admits((reason) => reasons.push(reason))).toBe(false);
    expect(reasons).toEqual([expect.stringMatching(/no room .* 100 descriptors/)]);
    other.close();
    expect(one.admits(() => {})).toBe(true);
  });
});

/** An echo on any place. */
async function listen(place: object): Promise<AddressInfo> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    socket.pipe(socket);
  });
  cleanups.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  await once(server.listen({ ...place, backlog: 4096 }), "listening");
  return server.address() as AddressInfo;
}

async function startCrowd(): Promise<{ child: ChildProcess; port: number; place: Place }> {
  const folder = mkdtempSync(join(tmpdir(), "cloister-quota-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  const target = join(folder, "target");
  await listen({ path: target });
  const { port: remotePort } = await listen({ port: 0, host: "127.0.0.1" });
  const place = { target, proxy: join(folder, "proxy"), remotePort };
  const script = join(import.meta.dirname, "crowd.ts");
  const child = spawn(
    "/bin/sh",
    ["-c", `ulimit -n ${LIMIT} && exec "$0" "$@"`, process.execPath, script, JSON.stringify(place)],
    { stdio: ["ignore", "inherit", "inherit", "ipc"] },
  );
  cleanups.push(async () => {
    if (child.exitCode === null && child.kill("SIGKILL")) await once(child, "exit");
  });
  const [port] = (await once(child, "message")) as [number];
  return { child, port, place };
}

async function report(child: ChildProcess): Promise<Report> {
  const answer = once(child, "message");
  child.send("report");
  return (await answer)[0] as Report;
}

/** What a new connection says to `first`: its first chunk, or how it ended. */
function answer(
  place: NetConnectOpts,
  first: Uint8Array,
): { socket: Socket; said: Promise<Buffer | string> } {
  const { promise, resolve } = Promise.withResolvers<Buffer | string>();
  const socket = connect(place);
  cleanups.push(() => socket.destroy());
  socket.once("data", resolve);
  socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
  socket.once("close", () => resolve("closed"));
  socket.write(first);
  return { socket, said: promise };
}

test("clients without end: some are served, the rest reset, files can be opened, and room that is free again is given", async () => {
  const { child, port } = await startCrowd();
  const ask = () => answer({ port, host: "127.0.0.1" }, Buffer.from("ping"));
  const clients = Array.from({ length: 200 }, ask);
  const said = (await Promise.all(clients.map((client) => client.said))).map(String);
  const served = said.filter((text) => text === "ping").length;
  expect(served).toBeGreaterThan(10);
  expect(said.filter((text) => text !== "ping" && text !== "ECONNRESET" && text !== "closed")).toEqual([]);
  const { published, refusals, files } = await report(child);
  expect([published.open, published.refused]).toEqual([served, 200 - served]);
  expect(refusals).toEqual([
    `published port 8080: no room for more connections: this process may have ${LIMIT} descriptors (RLIMIT_NOFILE)`,
  ]);
  expect(files).toBe(10);
  for (const { socket } of clients) socket.destroy();
  await expect.poll(async () => (await report(child)).published.open).toBe(0);
  expect(String(await ask().said)).toBe("ping");
});

test("an enclave that connects without end is told EMFILE, and takes nothing from the process", async () => {
  const { child, place } = await startCrowd();
  const request = encodeOutboundRequest({ type: "connect", host: "remote.test", port: 80, family: 0 });
  const ask = () => answer({ path: place.proxy }, request);
  const said = await Promise.all(Array.from({ length: 200 }, ask).map((client) => client.said));
  const statuses = said.flatMap((bytes) => (typeof bytes === "string" ? [] : [decodeStatus(bytes)]));
  const served = statuses.filter((status) => status === 0).length;
  expect(served).toBeGreaterThan(10);
  expect(new Set(statuses)).toEqual(new Set([0, -constants.errno.EMFILE]));
  const { egress, refusals, files } = await report(child);
  expect([egress.open, egress.refused]).toEqual([served, 200 - served]);
  expect(refusals).toEqual([
    `egress: no room for more connections: this process may have ${LIMIT} descriptors (RLIMIT_NOFILE)`,
  ]);
  expect(files).toBe(10);
});
