/** The parent's proxy against sockets of this machine, and against an enclave that is hostile or slow. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeLookupAnswer,
  decodeResolveAnswer,
  encodeOutboundRequest,
  RESOLVE_LENGTH_SIZE,
} from "../../format/outbound.ts";
import { isReachable } from "../../launcher/address.ts";
import { LookupError, Resolver } from "../../launcher/resolver.ts";
import {
  dialling,
  EACCES,
  EAI_AGAIN,
  ECONNREFUSED,
  ENOTFOUND,
  found,
  proxy,
  RELAYS,
  serve,
  status,
  take,
} from "./proxy.ts";

describe.each(RELAYS)("a connection by %s", (_, way) => {
  const echo = () => serve((socket) => socket.pipe(socket));
  const local = async () => [{ host: "Echo.test", port: 7, to: await echo() }];

  test("carries bytes both ways and passes ends on", async () => {
    const { ask } = await proxy({ ...way(), rules: ["echo.test:7"], local: await local() });
    const stream = ask(dialling("echo.test", 7));
    expect(await status(stream)).toBe(0);
    const bytes = Buffer.alloc(3_000_000, "0123456789");
    stream.end(bytes);
    expect((await buffer(stream)).equals(bytes)).toBe(true);
  });

  test("a remote that speaks first loses nothing", async () => {
    const to = await serve((socket) => socket.end("220 hello"));
    const { ask } = await proxy({
      ...way(),
      rules: ["a.test:25"],
      local: [{ host: "a.test", port: 25, to }],
    });
    const stream = ask(dialling("a.test", 25));
    expect(await status(stream)).toBe(0);
    expect((await buffer(stream)).toString()).toBe("220 hello");
  });

  test("half-close: the remote answers after the end", async () => {
    const to = await serve((socket) => {
      let got = "";
      socket.on("data", (chunk) => {
        got += chunk;
      });
      socket.on("end", () => socket.end(`got ${got}`));
    });
    const { ask } = await proxy({
      ...way(),
      rules: ["a.test:25"],
      local: [{ host: "a.test", port: 25, to }],
    });
    const stream = ask(dialling("a.test", 25));
    expect(await status(stream)).toBe(0);
    stream.end("four");
    expect((await buffer(stream)).toString()).toBe("got four");
  });

  test("a remote's reset breaks the stream", async () => {
    const to = await serve((socket) => socket.once("data", () => socket.resetAndDestroy()));
    const { ask, broken } = await proxy({
      ...way(),
      rules: ["a.test:1"],
      local: [{ host: "a.test", port: 1, to }],
    });
    const stream = ask(dialling("a.test", 1));
    expect(await status(stream)).toBe(0);
    stream.resume().write("x");
    await broken();
  });

  test("an enclave that resets breaks the remote's connection", async () => {
    const { promise, resolve } = Promise.withResolvers<Socket>();
    const to = await serve(resolve);
    const { ask } = await proxy({ ...way(), rules: ["a.test:1"], local: [{ host: "a.test", port: 1, to }] });
    const stream = ask(dialling("a.test", 1));
    expect(await status(stream)).toBe(0);
    const remote = (await promise).resume();
    const error = new Promise((settle) => remote.once("error", settle));
    stream.resetAndDestroy();
    expect(await error).toMatchObject({ code: "ECONNRESET" });
  });

  test("a reader that stops stops the writer", async () => {
    let written = 0;
    const to = await serve((socket) => {
      const fill = () => {
        while (!socket.destroyed && socket.write(Buffer.alloc(65_536))) written += 65_536;
      };
      socket.on("drain", fill);
      fill();
    });
    const { ask } = await proxy({ ...way(), rules: ["a.test:1"], local: [{ host: "a.test", port: 1, to }] });
    const stream = ask(dialling("a.test", 1));
    expect(await status(stream)).toBe(0);
    stream.pause();
    // Until nothing moves any more: kernel buffers on both hops, and ours.
    for (let before = -1; before !== written; await new Promise((resolve) => setTimeout(resolve, 200)))
      before = written;
    expect(written).toBeLessThan(64 * 1024 * 1024);
  });

  test("its proxy's end resets it", async () => {
    const { ask, broken, close } = await proxy({ ...way(), rules: ["echo.test:7"], local: await local() });
    const stream = ask(dialling("echo.test", 7));
    expect(await status(stream)).toBe(0);
    close();
    await broken();
  });
});

describe("refuses", () => {
  test.each([
    ["a host that is not listed", "b.test", 443, "the list does not have it"],
    ["a port that is not listed", "a.test", 80, "the list does not have it"],
    ["a host that is none", "a test", 443, "the list does not have it"],
    ["an address that is not listed", "10.0.0.5", 443, "the list does not have it"],
    [
      "a listed address of the link",
      "169.254.169.254",
      80,
      "leads to 169.254.169.254, which is this machine's",
    ],
  ])("%s", async (_, host, port, reason) => {
    const { ask, refusals } = await proxy({
      rules: ["a.test:443", "169.254.169.254:80"],
      resolver: found("1.1.1.1"),
    });
    expect(await status(ask(dialling(host, port)))).toBe(EACCES);
    expect(refusals).toEqual([expect.stringContaining(reason)]);
  });

  test.each([
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "::7f00:1",
    "no address",
  ])("a name that leads to %s", async (address) => {
    expect(isReachable(address)).toBe(false);
    const { ask, refusals } = await proxy({ rules: ["meta.test:80"], resolver: found(address) });
    expect(await status(ask(dialling("meta.test", 80)))).toBe(EACCES);
    expect(refusals[0]).toContain(`meta.test:80: refused: leads to ${address}`);
  });

  test.each([
    "8.8.8.8",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "2001:db8::1",
    "fd12::1",
    "64:ff9b::808:808",
  ])("%s is reachable", (address) => expect(isReachable(address)).toBe(true));

  test("among a name's addresses those that are not reachable, and connects to none of them", async () => {
    const { port } = await serve((socket) => socket.end("reached"));
    // The listener is on the loopback, at every address of it: were the check missing, this would connect.
    const { ask } = await proxy({
      rules: [`a.test:${port}`],
      resolver: found("127.0.0.1", "169.254.169.254"),
    });
    expect(await status(ask(dialling("a.test", port)))).toBe(EACCES);
  });

  test("but not what it is told to allow by name", async () => {
    const { port } = await serve((socket) => socket.end("reached"));
    const { ask } = await proxy({
      rules: [`a.test:${port}`],
      local: [{ host: "a.test", port }],
      resolver: found("127.0.0.1"),
    });
    const stream = ask(dialling("a.test", port));
    expect(await status(stream)).toBe(0);
    expect((await buffer(stream)).toString()).toBe("reached");
  });
});

describe("errors of the network", () => {
  test("a port where nothing listens", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const to = { address: "127.0.0.1", port: (server.address() as AddressInfo).port };
    server.close();
    await once(server, "close");
    const { ask } = await proxy({ rules: ["a.test:1"], local: [{ host: "a.test", port: 1, to }] });
    expect(await status(ask(dialling("a.test", 1)))).toBe(ECONNREFUSED);
  });

  test("a name that is not there", async () => {
    const resolver = new Resolver(async (name) => Promise.reject(new LookupError(name, ENOTFOUND)));
    const { ask } = await proxy({ rules: ["*.test:1"], resolver });
    expect(await status(ask(dialling("a.test", 1)))).toBe(ENOTFOUND);
    expect(decodeLookupAnswer(await take(ask({ type: "lookup", host: "b.test" }), 5))).toEqual({
      status: ENOTFOUND,
      ipv4: false,
      ipv6: false,
    });
  });

  test("a name of the other family only", async () => {
    const { ask } = await proxy({ rules: ["a.test:1"], resolver: found("2001:db8::1") });
    expect(await status(ask(dialling("a.test", 1, 4)))).toBe(-97);
  });

  test("a resolver that never answers", async () => {
    const resolver = new Resolver(() => new Promise(() => {}), 50);
    const { ask } = await proxy({ rules: ["a.test:1"], resolver });
    expect(await status(ask(dialling("a.test", 1)))).toBe(EAI_AGAIN);
  });
});

describe("names", () => {
  test("are looked up by the parent, with the families they have", async () => {
    const { ask } = await proxy({ rules: ["a.test:1"], resolver: found("1.1.1.1", "2001:db8::1") });
    expect(decodeLookupAnswer(await take(ask({ type: "lookup", host: "a.test" }), 5))).toEqual({
      status: 0,
      ipv4: true,
      ipv6: true,
    });
  });

  test("that are not listed are not asked for", async () => {
    const asked: string[] = [];
    const resolver = new Resolver(async (name) => {
      asked.push(name);
      return [];
    });
    const { ask, refusals } = await proxy({ rules: ["a.test:1"], resolver });
    expect(decodeLookupAnswer(await take(ask({ type: "lookup", host: "b.test" }), 5)).status).toBe(ENOTFOUND);
    const stream = ask({ type: "resolve", host: "b.test", record: "TXT" });
    expect(decodeResolveAnswer((await buffer(stream)).subarray(RESOLVE_LENGTH_SIZE))).toEqual({
      error: "EREFUSED",
    });
    expect(asked).toEqual([]);
    expect(refusals).toHaveLength(2);
  });

  test("are asked for once, two at a time, and again later", async () => {
    let running = 0;
    let most = 0;
    const asked: string[] = [];
    const gate = Promise.withResolvers<void>();
    const resolver = new Resolver(async (name) => {
      asked.push(name);
      most = Math.max(most, ++running);
      await gate.promise;
      running--;
      return [{ address: "1.1.1.1", family: 4 }];
    });
    const names = ["a", "b", "c", "d", "a", "b"];
    const answers = names.map((name) => resolver.addresses(name));
    gate.resolve();
    await Promise.all(answers);
    expect([asked, most]).toEqual([["a", "b", "c", "d"], 2]);
  });
});

describe("a hostile enclave", () => {
  test("whatever it sends is refused, and the proxy serves on", async () => {
    const { dial, ask } = await proxy({ rules: ["a.test:1"], resolver: found("127.0.0.1") });
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 600 }), async (bytes) => {
        const stream = dial().resume();
        stream.end(bytes);
        await once(stream, "close");
      }),
      { numRuns: 200 },
    );
    expect(await status(ask(dialling("a.test", 1)))).toBe(EACCES);
  });

  test("a request in single bytes is a request", async () => {
    const { dial } = await proxy({ rules: ["a.test:1"], resolver: found("127.0.0.1") });
    const stream = dial().setNoDelay(true);
    for (const byte of encodeOutboundRequest(dialling("a.test", 1))) {
      stream.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await status(stream)).toBe(EACCES);
  });
});
