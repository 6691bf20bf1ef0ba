/** The parent's proxy where its network is at fault: names that fail, stall and change, remotes that hang and trickle. */
import { promises as dns } from "node:dns";
import { once } from "node:events";
import type { Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  decodeLookupAnswer,
  decodeResolveAnswer,
  RESOLVE_LENGTH_SIZE,
  type RecordType,
} from "../../format/outbound.ts";
import { Resolver } from "../../launcher/resolver.ts";
import { openBlackHole } from "./blackhole.ts";
import { domain, type NameServer, startNameServer, text, u16, u32, type Zone } from "./nameserver.ts";
import { dialling, EACCES, EAI_AGAIN, found, proxy, RELAYS, serve, status, take } from "./proxy.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function nameServer(zone: Zone): Promise<{ server: NameServer; records: dns.Resolver }> {
  const server = await startNameServer(zone);
  closing.push(() => server.close());
  const records = new dns.Resolver({ timeout: 200, tries: 1 });
  records.setServers([server.address]);
  return { server, records };
}

async function blackHole(address: string, port?: number): Promise<number> {
  const hole = await openBlackHole(address, port);
  closing.push(() => hole.close());
  return hole.port;
}

/** A resolver that answers the next list each time; the last one for good. */
function changing(...answers: (readonly string[])[]): Resolver {
  let asked = 0;
  return new Resolver(async () => {
    const addresses = answers[Math.min(asked++, answers.length - 1)] ?? [];
    return addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
  });
}

const lookup = (host: string) => ({ type: "lookup", host }) as const;

describe("a name whose answer changes", () => {
  test.each(["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "127.0.0.1"])(
    "to %s is refused, whatever it was when it was looked up",
    async (metadata) => {
      const resolver = changing(["203.0.113.1"], [metadata]);
      const { ask, refusals } = await proxy({ rules: ["rebinding.test:80"], resolver });
      const families = async () => decodeLookupAnswer(await take(ask(lookup("rebinding.test")), 5));
      expect(await families()).toEqual({ status: 0, ipv4: true, ipv6: false });
      const asked = () => resolver.addresses("rebinding.test");
      // An answer is kept for a second.
      await expect.poll(asked, { timeout: 20_000 }).toMatchObject([{ address: metadata }]);
      expect(await status(ask(dialling("rebinding.test", 80)))).toBe(EACCES);
      expect(refusals).toEqual([expect.stringContaining(`rebinding.test:80: refused: leads to ${metadata}`)]);
    },
  );

  test("from a failure to an address", async () => {
    const { port } = await serve((socket) => socket.end("found"));
    let asked = 0;
    const resolver = new Resolver(async () => {
      if (asked++ === 0) throw Object.assign(new Error(), { errno: EAI_AGAIN });
      return [{ address: "127.0.0.1", family: 4 }];
    });
    const { ask } = await proxy({ rules: [`a.test:${port}`], local: [{ host: "a.test", port }], resolver });
    expect(await status(ask(dialling("a.test", port)))).toBe(EAI_AGAIN);
    await expect.poll(() => status(ask(dialling("a.test", port))), { timeout: 20_000 }).toBe(0);
  });
});

describe("records", () => {
  const ask = async (zone: Zone, record: RecordType) => {
    const { records } = await nameServer(zone);
    const carrier = await proxy({ rules: ["a.test:1"], records });
    const bytes = await buffer(carrier.ask({ type: "resolve", host: "a.test", record }));
    return decodeResolveAnswer(bytes.subarray(RESOLVE_LENGTH_SIZE));
  };

  test.each<[RecordType, Buffer, unknown]>([
    ["TXT", Buffer.concat([text("one"), text("two")]), [["one", "two"]]],
    ["MX", Buffer.concat([u16(10), domain("mx.test")]), [{ type: "MX", priority: 10, exchange: "mx.test" }]],
    [
      "SRV",
      Buffer.concat([u16(1, 2, 5432), domain("pg.test")]),
      [{ type: "SRV", priority: 1, weight: 2, port: 5432, name: "pg.test" }],
    ],
    ["NS", domain("ns.test"), ["ns.test"]],
    ["CNAME", domain("b.test"), ["b.test"]],
    ["PTR", domain("c.test"), ["c.test"]],
    [
      "SOA",
      Buffer.concat([domain("ns.test"), domain("root.test"), u32(1, 2, 3, 4, 5)]),
      { nsname: "ns.test", hostmaster: "root.test", serial: 1, refresh: 2, retry: 3, expire: 4, minttl: 5 },
    ],
    [
      "CAA",
      Buffer.concat([Buffer.of(0), text("issue"), Buffer.from("ca.test")]),
      [{ critical: 0, issue: "ca.test", type: "CAA" }],
    ],
  ])("%s are passed on", async (record, data, expected) => {
    const zone: Zone = (_, type) => [{ type, data }];
    expect(await ask(zone, record)).toEqual({ records: expected });
  });

  test.each<[string, Zone, string]>([
    ["a name that is not there", () => undefined, "ENOTFOUND"],
    ["a name without such records", () => [], "ENODATA"],
    ["a server that says nothing", () => "silence", "ETIMEOUT"],
    ["a server that says nonsense", (_, type) => [{ type, data: Buffer.of(0xff, 0xff) }], "EBADRESP"],
  ])("%s: %s", async (_, zone, error) => expect(await ask(zone, "TXT")).toEqual({ error }));
});

describe.each(RELAYS)("by %s, a remote", (_, way) => {
  test.each([
    ["::1", "127.0.0.1"],
    ["127.0.0.1", "::1"],
  ])("of two addresses %s is dead: the other, %s, is connected to", async (dead, live) => {
    const { port } = await serve((socket) => socket.end(`${socket.localAddress}`), live);
    await blackHole(dead, port);
    const options = { rules: [`two.test:${port}`], local: [{ host: "two.test", port }] };
    const { ask } = await proxy({ ...way(), ...options, resolver: found(dead, live) });
    const stream = ask(dialling("two.test", port));
    expect(await status(stream)).toBe(0);
    expect((await buffer(stream)).toString()).toBe(live);
  });

  test("of two addresses the first refuses: the other is connected to", async () => {
    const { port } = await serve((socket) => socket.end("reached"));
    const options = { rules: [`two.test:${port}`], local: [{ host: "two.test", port }] };
    const { ask } = await proxy({ ...way(), ...options, resolver: found("::1", "127.0.0.1") });
    const stream = ask(dialling("two.test", port));
    expect(await status(stream)).toBe(0);
    expect((await buffer(stream)).toString()).toBe("reached");
  });

  test("that does not answer is let go when the enclave gives up", async () => {
    const port = await blackHole("127.0.0.1");
    const options = { rules: [`dead.test:${port}`], local: [{ host: "dead.test", port }] };
    const { ask } = await proxy({ ...way(), ...options, resolver: found("127.0.0.1") });
    const attempts = () => process.getActiveResourcesInfo().filter((name) => name === "ConnectWrap").length;
    const before = attempts();
    const streams = Array.from({ length: 20 }, () => ask(dialling("dead.test", port)));
    await expect.poll(attempts).toBe(before + 20);
    for (const stream of streams) stream.destroy();
    await expect.poll(attempts).toBe(before);
  });

  test("that stalls does not stall another", async () => {
    const stalled = await serve(() => {});
    const other = await serve((socket) => socket.end("served"));
    const local = [
      { host: "stalled.test", port: 1, to: stalled },
      { host: "other.test", port: 1, to: other },
    ];
    const { ask } = await proxy({ ...way(), rules: ["*.test:1"], local });
    const waiting = ask(dialling("stalled.test", 1));
    expect(await status(waiting)).toBe(0);
    waiting.write("anyone?");
    const stream = ask(dialling("other.test", 1));
    expect(await status(stream)).toBe(0);
    expect((await buffer(stream)).toString()).toBe("served");
    expect(waiting.readableEnded).toBe(false);
  });

  test("that sends a byte at a time has each of them delivered before the next", async () => {
    const { promise, resolve } = Promise.withResolvers<Socket>();
    const to = await serve(resolve);
    const { ask } = await proxy({
      ...way(),
      rules: ["slow.test:1"],
      local: [{ host: "slow.test", port: 1, to }],
    });
    const stream = ask(dialling("slow.test", 1));
    expect(await status(stream)).toBe(0);
    const remote = await promise;
    for (const byte of Buffer.from("trickle")) {
      remote.write(Buffer.of(byte));
      expect(await take(stream, 1)).toEqual(Buffer.of(byte));
    }
  });

  test("that resets in the middle breaks the stream, and no other", async () => {
    const { promise, resolve } = Promise.withResolvers<Socket>();
    const resets = await serve(resolve);
    const echo = await serve((socket) => socket.pipe(socket));
    const local = [
      { host: "resets.test", port: 1, to: resets },
      { host: "echo.test", port: 1, to: echo },
    ];
    const { ask } = await proxy({ ...way(), rules: ["*.test:1"], local });
    const [broken, whole] = [ask(dialling("resets.test", 1)), ask(dialling("echo.test", 1))];
    expect([await status(broken), await status(whole)]).toEqual([0, 0]);
    const ended = new Promise((settle) => broken.resume().once("end", settle).once("error", settle));
    (await promise).write("part of it", () => void promise.then((remote) => remote.resetAndDestroy()));
    await ended;
    whole.write("still here");
    expect((await take(whole, 10)).toString()).toBe("still here");
  });
});

describe.each(RELAYS)("by %s, an enclave", (_, way) => {
  test("that sends a part of a request and no more is cut off", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    closing.push(() => vi.useRealTimers());
    const { dial, accepted } = await proxy({ ...way(), rules: ["a.test:1"] });
    const stream = dial();
    stream.write(Buffer.of(1, 0));
    await accepted();
    const ended = once(stream.resume(), "end");
    vi.advanceTimersByTime(9_999);
    expect(stream.readableEnded).toBe(false);
    vi.advanceTimersByTime(1);
    await ended;
  });

  test("that does not wait for the answer loses nothing", async () => {
    const to = await serve((socket) => socket.pipe(socket));
    const { ask } = await proxy({
      ...way(),
      rules: ["echo.test:1"],
      local: [{ host: "echo.test", port: 1, to }],
    });
    const stream = ask(dialling("echo.test", 1));
    stream.end("early");
    expect(await status(stream)).toBe(0);
    expect((await buffer(stream)).toString()).toBe("early");
  });
});
