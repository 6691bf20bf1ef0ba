/**
 * This thread's network, routed as an app's in an enclave is: a socket pair plays the vsock, the parent's real proxy answers
 * on another thread, and in its place a parent that is hostile. What only AF_VSOCK shows, resets above all, is
 * test/e2e/egress.test.ts's.
 */
import { createSocket } from "node:dgram";
import dns from "node:dns";
import { once } from "node:events";
import { readdirSync, writeFileSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { encodeLookupAnswer, encodeStatus } from "../../format/outbound.ts";
import { makeSocketPair } from "../../linux/descriptor.ts";
import { openStream } from "../../linux/stream.ts";
import { connectionsOver } from "../../runtime/connection.ts";
import { Egress } from "../../runtime/egress.ts";
import { Outbound } from "../../runtime/outbound.ts";
import { routeNames } from "../../runtime/resolver.ts";
import { routeTcp } from "../../runtime/tcp.ts";
import { preloadWorkers } from "../../runtime/thread.ts";
import { refuseUdp } from "../../runtime/udp.ts";
import type { CarrierData } from "./carrier.ts";

const RULES = [
  "echo.test:7",
  "*.sub.test:7",
  "10.9.9.9:7",
  "web.test:80",
  "closed.test:7",
  "meta.test:7",
  "none.test:7",
  "six.test:7",
];
const { ECONNREFUSED, EACCES } = { ECONNREFUSED: -111, EACCES: -13 };

/** dns.promises.lookup keeps the getaddrinfo that it finds when it is first loaded, and the test runner has loaded it. */
const { Resolver, resolve4, resolve6, resolveAny, resolveSoa, resolveTxt, reverse } = dns.promises;
const lookup = promisify(dns.lookup) as typeof dns.promises.lookup;

const servers: Server[] = [];
const said: string[] = [];
let carrier: Worker;
/** Who answers at the parent's port, instead of the proxy. */
let parent: ((stream: Socket) => void) | undefined;
const opened: Socket[] = [];

async function listen(server: Server): Promise<{ address: string; port: number }> {
  servers.push(server.listen(0, "127.0.0.1"));
  await once(server, "listening");
  return { address: "127.0.0.1", port: (server.address() as AddressInfo).port };
}

async function open(): Promise<number> {
  const [ours, theirs] = makeSocketPair();
  if (parent === undefined) carrier.postMessage(theirs);
  else {
    const stream = openStream(theirs, { allowHalfOpen: true });
    stream.on("error", () => {});
    opened.push(stream);
    parent(stream);
  }
  return ours;
}

beforeAll(async () => {
  const echo = await listen(createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)));
  const web = await listen(createHttp((request, response) => response.end(`site ${request.headers.host}`)));
  const closed = createServer();
  const { port } = await listen(closed);
  closed.close();
  const v4 = { address: "127.0.0.1", family: 4 };
  const v6 = { address: "2001:db8::1", family: 6 };
  const workerData: CarrierData = {
    rules: RULES,
    local: [
      ...["echo.test", "a.b.sub.test", "10.9.9.9", "six.test"].map((host) => ({ host, port: 7, to: echo })),
      { host: "web.test", port: 80, to: web },
      { host: "closed.test", port: 7, to: { address: "127.0.0.1", port } },
    ],
    names: {
      "meta.test": [{ address: "169.254.169.254", family: 4 }],
      "both.sub.test": [v4, v6],
      "only.sub.test": [v6],
    },
    records: [["a text"]],
  };
  carrier = new Worker(new URL("carrier.ts", import.meta.url), { workerData });
  await once(carrier, "online");
  const outbound = new Outbound(open);
  const egress = new Egress({ rules: RULES, outbound, say: (line) => said.push(line) });
  routeTcp(egress, connectionsOver(egress, outbound));
  routeNames(egress);
  refuseUdp(egress);
});

afterEach(() => {
  parent = undefined;
  said.length = 0;
  for (const stream of opened.splice(0)) stream.destroy();
});

afterAll(async () => {
  for (const server of servers) server.close();
  await carrier.terminate();
});

/** Sends "hello", ends, and returns what comes back. */
async function echo(options: object): Promise<string> {
  const socket = connect({ port: 7, allowHalfOpen: true, ...options });
  socket.end("hello");
  return await text(socket);
}

const denied = (what: string, rule: string) => ({
  code: "E_EGRESS_DENIED",
  message: `${what}: got a host or port that egress does not list, expected egress: ["${rule}"]`,
});

describe("a connection", () => {
  test.each([
    ["to a name", { host: "echo.test" }],
    ["to a name in capitals", { host: "ECHO.test" }],
    ["to a name of a wildcard", { host: "a.b.sub.test" }],
    ["to an address", { host: "10.9.9.9" }],
    ["to a name, one family", { host: "echo.test", family: 4, autoSelectFamily: false }],
    [
      "looked up by the app",
      {
        host: "echo.test",
        lookup: (...args: unknown[]) =>
          (args[2] as (...found: unknown[]) => void)(null, [{ address: "203.0.113.9", family: 4 }]),
      },
    ],
  ])("%s", async (_, options) => expect(await echo(options)).toBe("hello"));

  test("to an address that stands for a name", async () => {
    const { address } = await lookup("echo.test");
    expect(address).toMatch(/^198\.1[89]\./);
    expect(await echo({ host: address })).toBe("hello");
  });

  test("of fetch", async () => expect(await (await fetch("http://web.test/")).text()).toBe("site web.test"));

  test("says whom it is with", async () => {
    const socket = connect({ host: "10.9.9.9", port: 7, noDelay: true, keepAlive: true });
    await once(socket, "connect");
    socket.setNoDelay(true).setKeepAlive(true, 1000).setTypeOfService(16);
    const { remoteAddress, remotePort, remoteFamily, localAddress, localPort } = socket;
    expect([remoteAddress, remotePort, remoteFamily, localAddress, localPort]).toEqual([
      "10.9.9.9",
      7,
      "IPv4",
      "0.0.0.0",
      0,
    ]);
    socket.destroy();
  });

  test("within this machine needs no rule", async () => {
    const { port } = (servers[0] as Server).address() as AddressInfo;
    expect(await echo({ host: "127.0.0.1", port })).toBe("hello");
    expect(await echo({ host: "localhost", port })).toBe("hello");
  });
});

describe("what is not listed", () => {
  test.each([
    ["a host", { host: "evil.test" }, "connect evil.test:7", "evil.test:7"],
    ["a port", { host: "echo.test", port: 8 }, "connect echo.test:8", "echo.test:8"],
    ["an address", { host: "10.9.9.8" }, "connect 10.9.9.8:7", "10.9.9.8:7"],
    ["an IPv6 address", { host: "2001:db8:0::9" }, "connect [2001:db8::9]:7", "[2001:db8::9]:7"],
    ["a wildcard's own name", { host: "sub.test" }, "connect sub.test:7", "sub.test:7"],
  ])("%s is refused and logged, and the parent hears nothing", async (_, options, what, rule) => {
    parent = () => said.push("asked");
    const error = denied(what, rule);
    await expect(echo(options)).rejects.toMatchObject(error);
    expect(said).toEqual([`E_EGRESS_DENIED: ${error.message}`]);
  });

  test("a socket to it waits for its error, as for any connect", async () => {
    const socket = connect(7, "evil.test");
    expect(socket.connecting).toBe(true);
    const written = promisify<string, void>(socket.write.bind(socket))("early");
    await Promise.all([
      expect(once(socket, "connect")).rejects.toMatchObject({ code: "E_EGRESS_DENIED" }),
      expect(written).rejects.toMatchObject({ code: "ERR_SOCKET_CLOSED_BEFORE_CONNECTION" }),
    ]);
  });

  test("a port at an address that stands for a name, by its name", async () => {
    const { address } = await lookup("echo.test");
    await expect(echo({ host: address, port: 9 })).rejects.toMatchObject(
      denied("connect echo.test:9", "echo.test:9"),
    );
  });

  test("an address that the app looked up itself for a name that is not listed", async () => {
    const options = {
      host: "evil.test",
      lookup: (...args: unknown[]) => (args[2] as (...found: unknown[]) => void)(null, "10.9.9.8", 4),
    };
    await expect(echo(options)).rejects.toMatchObject({ code: "E_EGRESS_DENIED" });
  });

  test.each<[string, () => Promise<unknown>]>([
    ["lookup", () => lookup("evil.test")],
    ["lookup with a callback", () => promisify(dns.lookup)("evil.test")],
    ["resolve4", () => resolve4("evil.test")],
    ["resolveTxt", () => resolveTxt("evil.test")],
    ["resolve with a callback", () => promisify(dns.resolveMx)("evil.test")],
  ])("a name for %s", async (_, ask) => {
    await expect(ask()).rejects.toMatchObject(denied("resolve evil.test", "evil.test:PORT"));
  });
});

describe("names", () => {
  test("have the families that the parent says", async () => {
    const both = await lookup("both.sub.test", { all: true });
    expect(both.map(({ family }) => family)).toEqual([4, 6]);
    expect(
      (await lookup("both.sub.test", { all: true, order: "ipv6first" })).map(({ family }) => family),
    ).toEqual([6, 4]);
    expect((await lookup("both.sub.test", { family: 6 })).address).toMatch(/^2001:2::/);
    expect((await lookup("only.sub.test")).family).toBe(6);
    expect(await resolve6("only.sub.test")).toEqual([(await lookup("only.sub.test")).address]);
    await expect(resolve4("only.sub.test")).rejects.toMatchObject({ code: "ENOTFOUND" });
    await expect(lookup("only.sub.test", 4)).rejects.toMatchObject({ code: "ENOTFOUND" });
  });

  test("are not kept as if they were addresses, and lead back", async () => {
    const [record] = await new Resolver().resolve4("both.sub.test", { ttl: true });
    expect(record?.ttl).toBe(0);
    expect(await reverse(record?.address ?? "")).toEqual(["both.sub.test"]);
    await expect(reverse("8.8.8.8")).rejects.toMatchObject({ code: "ENOTFOUND" });
  });

  test("that are not there", async () => {
    await expect(lookup("none.test")).rejects.toMatchObject({ code: "ENOTFOUND" });
    await expect(lookup("no name")).rejects.toMatchObject({ code: "ENOTFOUND" });
  });

  test("of this machine are answered as ever", async () => {
    expect(await lookup("localhost", 4)).toEqual({ address: "127.0.0.1", family: 4 });
    expect((await lookup("127.0.0.1")).address).toBe("127.0.0.1");
  });

  test("in other scripts are asked for as DNS has them", async () => {
    await expect(lookup("bücher.test")).rejects.toMatchObject({
      message: expect.stringContaining("xn--bcher-kva.test"),
    });
  });

  test("have records", async () => expect(await resolveTxt("echo.test")).toEqual([["a text"]]));
});

describe("the parent's refusals and errors", () => {
  test("are Node's", async () => {
    await expect(echo({ host: "closed.test" })).rejects.toMatchObject({
      code: "ECONNREFUSED",
      errno: ECONNREFUSED,
    });
    await expect(echo({ host: "none.test" })).rejects.toMatchObject({ code: "ENOTFOUND" });
  });

  test("are logged where its proxy refuses what this list allows", async () => {
    await expect(echo({ host: "meta.test" })).rejects.toMatchObject({ code: "EACCES", errno: EACCES });
    expect(said).toEqual([expect.stringContaining("egress: meta.test:7: the parent's proxy refused it")]);
  });
});

test("descriptors are given back, whatever came of them", async () => {
  const count = () => readdirSync("/proc/self/fd").length;
  const before = count();
  for (let n = 0; n < 20; n++) {
    await expect(echo({ host: "closed.test" })).rejects.toThrow();
    await expect(lookup("none.test")).rejects.toThrow();
    await echo({ host: "10.9.9.9" });
  }
  await expect.poll(count).toBeLessThan(before + 20);
});

describe("an attempt that the app gives up", () => {
  test.each<[string, (socket: Socket) => void]>([["destroy", (socket) => socket.destroy()]])(
    "by %s ends at the parent",
    async (_, give) => {
      const { promise, resolve } = Promise.withResolvers<Socket>();
      parent = resolve;
      const socket = connect(7, "10.9.9.9").on("error", () => {});
      const stream = await promise;
      const ended = once(stream.resume(), "end");
      give(socket);
      await ended;
      expect(socket.connecting).toBe(false);
    },
  );

  test("by a signal", async () => {
    parent = () => {};
    const aborter = new AbortController();
    const socket = connect({ port: 7, host: "10.9.9.9", signal: aborter.signal });
    const error = once(socket, "error");
    aborter.abort();
    expect((await error)[0]).toMatchObject({ code: "ABORT_ERR" });
  });

  test("for the other family, when the first one does not answer", async () => {
    parent = (stream) => {
      stream.once("data", (request: Buffer) => {
        // The lookup has both families; a connect says which (format/outbound.ts).
        if (request[0] === 2) stream.end(encodeLookupAnswer({ status: 0, ipv4: true, ipv6: true }));
        else if (request.readUInt16BE(1) === 6)
          stream.write(Buffer.concat([encodeStatus(0), Buffer.from("six")]));
      });
    };
    const socket = connect(7, "six.test");
    const [data] = (await once(socket, "data")) as [Buffer];
    expect([data.toString(), socket.remoteFamily]).toEqual(["six", "IPv6"]);
    socket.destroy();
  });
});

describe("a hostile parent", () => {
  const bytes = (...values: number[]) => Buffer.from(values);
  const answering = (answer: Uint8Array) => (stream: Socket) =>
    void stream.once("data", () => stream.end(answer));

  test.each([
    ["no answer", bytes()],
    ["half a status", bytes(0, 0)],
    ["a status above 0", bytes(0, 0, 0, 1)],
    ["a status out of range", bytes(0x80, 0, 0, 0)],
  ])("to a connect: %s", async (_, answer) => {
    parent = answering(answer);
    await expect(echo({ host: "10.9.9.9" })).rejects.toMatchObject({ code: "E_EGRESS_PROXY" });
    expect(said).toHaveLength(1);
  });

  test.each<[string, Uint8Array]>([
    ["no answer", bytes()],
    ["a length beyond all records", bytes(0xff, 0xff, 0xff, 0xff)],
    ["less than its length", bytes(0, 0, 0, 9, 0x7b)],
    ["no JSON", bytes(0, 0, 0, 1, 0x7b)],
    ["records that are no list", Buffer.concat([bytes(0, 0, 0, 13), Buffer.from('{"records":5}')])],
  ])("to a question: %s", async (_, answer) => {
    parent = answering(answer);
    await expect(resolveTxt("echo.test")).rejects.toMatchObject({ code: "E_EGRESS_PROXY" });
    await expect(resolveSoa("echo.test")).rejects.toMatchObject({ code: "E_EGRESS_PROXY" });
  });

  test("addresses in records of any kind are what stands for the name", async () => {
    const json = JSON.stringify({
      records: [{ type: "A", address: "6.6.6.6", ttl: 9 }, { type: "NS", value: "n" }, null],
    });
    const length = Buffer.alloc(4);
    length.writeUInt32BE(json.length);
    parent = answering(Buffer.concat([length, Buffer.from(json)]));
    const records = (await resolveAny("both.sub.test")) as unknown[];
    parent = undefined;
    const [address] = await resolve4("both.sub.test");
    expect(records).toEqual([{ type: "A", address, ttl: 0 }, { type: "NS", value: "n" }, null]);
  });

  test("whatever it answers, a connect and a lookup end", async () => {
    let survived = 0;
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 12 }), async (answer) => {
        parent = answering(answer);
        await Promise.allSettled([echo({ host: "10.9.9.9" }), lookup("echo.test"), resolveTxt("echo.test")]);
        survived++;
      }),
      { numRuns: 100 },
    );
    expect(survived).toBe(100);
    parent = undefined;
    expect(await echo({ host: "10.9.9.9" })).toBe("hello");
  });
});

describe("UDP", () => {
  test.each([
    ["udp4", "8.8.8.8"],
    ["udp6", "2001:db8::1"],
  ] as const)("%s to %s fails and is logged", async (type, address) => {
    const socket = createSocket(type);
    await expect(
      promisify<string, number, string>(socket.send.bind(socket))("x", 53, address),
    ).rejects.toMatchObject({
      code: "EPROTONOSUPPORT",
    });
    socket.connect(53, address);
    expect((await once(socket, "error"))[0]).toMatchObject({ code: "EPROTONOSUPPORT" });
    socket.close();
    const shown = type === "udp6" ? `[${address}]` : address;
    expect(said).toEqual(Array(2).fill(`E_EGRESS_UDP: UDP to ${shown}:53: got a datagram, expected TCP`));
  });

  test("within this machine arrives, of a connected socket too", async () => {
    const server = createSocket("udp4").bind(0, "127.0.0.1");
    await once(server, "listening");
    const client = createSocket("udp4");
    client.connect(server.address().port, "127.0.0.1");
    await once(client, "connect");
    client.send("inside");
    expect(String((await once(server, "message"))[0])).toBe("inside");
    server.close();
    client.close();
  });
});

test("worker threads run the preload first, whatever their options", async () => {
  const preload = join(tmpdir(), `cloister-preload-${process.pid}.cjs`);
  writeFileSync(preload, "globalThis.preloaded = true;");
  preloadWorkers(preload);
  const threads = await import("node:worker_threads");
  const code = `require("node:worker_threads").parentPort.postMessage([globalThis.preloaded, process.execArgv.includes("--no-warnings")])`;
  const run = async (options: object) =>
    (await once(new threads.Worker(code, { eval: true, ...options }), "message"))[0];
  expect(await run({})).toEqual([true, false]);
  expect(await run({ execArgv: ["--no-warnings"] })).toEqual([true, true]);
});
