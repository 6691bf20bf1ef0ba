/** The relay of descriptors: ends, resets and backpressure between TCP and a socket that stands for the enclave's. */

import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { VSOCK_WRITE_MAX } from "../../format/abi.ts";
import { closeDescriptor, copyDescriptor, makeSocketPair } from "../../linux/descriptor.ts";
import { pieceMax } from "../../linux/flow.ts";
import { Relay } from "../../linux/relay.ts";
import { descriptorOf, openStream } from "../../linux/stream.ts";
import { bindSocket, PORT_ANY } from "../../linux/vsock.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanups.splice(0).reverse()) await cleanUp();
});

function makeRelay(): Relay {
  const relay = new Relay();
  cleanups.push(() => relay.close());
  return relay;
}

function watched(socket: Socket): Socket {
  socket.on("error", () => {});
  cleanups.push(() => socket.destroy());
  return socket;
}

/** A client over TCP, and the enclave's end of its relayed connection. */
async function joined(relay: Relay, head?: Uint8Array): Promise<{ client: Socket; enclave: Socket }> {
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as { port: number };
  const client = watched(connect({ port, host: "127.0.0.1", allowHalfOpen: true }));
  const [[accepted]] = (await Promise.all([once(server, "connection"), once(client, "connect")])) as [
    [Socket],
    unknown,
  ];
  server.close();
  const [ours, theirs] = makeSocketPair();
  relay.join(copyDescriptor(descriptorOf(accepted)), ours, head);
  accepted.destroy();
  return { client, enclave: watched(openStream(theirs, { allowHalfOpen: true })) };
}

async function collect(stream: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "end");
  return Buffer.concat(chunks);
}

/** Write until nothing moves any more; how many bytes that took. */
async function fill(socket: Socket, size = 1 << 16): Promise<number> {
  const chunk = Buffer.alloc(size, 1);
  const took = () => socket.bytesWritten - socket.writableLength;
  for (let last = -1; last !== took(); ) {
    last = took();
    for (let n = 0; n < 64 && socket.write(chunk); n++);
    await Promise.race([once(socket, "drain"), new Promise((resolve) => setTimeout(resolve, 200))]);
  }
  return took();
}

function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

test("bytes in any pieces arrive whole both ways, behind the head, and then the ends", async () => {
  const relay = makeRelay();
  const pieces = fc.array(fc.integer({ min: 1, max: 300_000 }), { maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(pieces, pieces, async (up, down) => {
      const { client, enclave } = await joined(relay, Buffer.from("head"));
      const send = (socket: Socket, sizes: number[], first: number) => {
        const sent = sizes.map((size, index) => Buffer.alloc(size, first + index));
        for (const chunk of sent) socket.write(chunk);
        socket.end();
        return Buffer.concat(sent);
      };
      const received = [collect(client), collect(enclave)] as const;
      const [said, answered] = [send(client, up, 1), send(enclave, down, 100)];
      expect((await received[0]).equals(answered)).toBe(true);
      expect((await received[1]).equals(Buffer.concat([Buffer.from("head"), said]))).toBe(true);
    }),
    { numRuns: 30 },
  );
  await expect.poll(() => relay.size).toBe(0);
});

test("a thousand pairs at once, counted, and nothing is left of them", async () => {
  const before = descriptors();
  const relay = makeRelay();
  const pairs = [];
  for (let n = 0; n < 1000; n++) pairs.push(await joined(relay));
  expect(relay.size).toBe(1000);
  await Promise.all(
    pairs.map(async ({ client, enclave }, index) => {
      enclave.pipe(enclave);
      client.end(`pair ${index}`);
      expect(String(await collect(client))).toBe(`pair ${index}`);
    }),
  );
  await expect.poll(() => relay.size).toBe(0);
  const bytes = pairs.reduce((sum, _, index) => sum + `pair ${index}`.length, 0);
  expect([relay.bytesIn, relay.bytesOut]).toEqual([bytes, bytes]);
  relay.close();
  await expect.poll(descriptors).toBeLessThanOrEqual(before + 3);
});

describe("who does not read", () => {
  test("stalls the other side: an enclave, and a client", async () => {
    const relay = makeRelay();
    const { client, enclave } = await joined(relay);
    expect(await fill(client)).toBeLessThan(32 << 20);
    expect(await fill(enclave)).toBeLessThan(32 << 20);
    const sent = client.bytesWritten;
    client.end();
    expect((await collect(enclave)).length).toBe(sent);
  });

  test("does not hold others up, nor does one that never stops sending", async () => {
    const relay = makeRelay();
    const busy = await joined(relay);
    const chunk = Buffer.alloc(1 << 20);
    const send = () => {
      while (busy.client.write(chunk));
    };
    busy.client.on("drain", send);
    busy.enclave.resume();
    send();
    const { client, enclave } = await joined(relay);
    enclave.pipe(enclave);
    for (let n = 0; n < 50; n++) {
      client.write("ping");
      expect(String((await once(client, "data"))[0])).toBe("ping");
    }
    busy.client.off("drain", send);
  });

  test("and leaves meanwhile: the other side hears of it at once", async () => {
    const relay = makeRelay();
    const { client, enclave } = await joined(relay);
    await fill(client);
    client.resetAndDestroy();
    await expect.poll(() => relay.size).toBe(0);
    await collect(enclave);
  });
});

describe("an enclave's socket that closes", () => {
  test("well: its last bytes arrive, then the end, and a client that stays is let go", async () => {
    const relay = makeRelay();
    const { client, enclave } = await joined(relay);
    enclave.write("last words", () => enclave.destroy());
    expect(String(await collect(client))).toBe("last words");
    await expect.poll(() => relay.size).toBe(0);
  });

  test("with more in flight than buffers hold: the client still gets all of it", async () => {
    const relay = makeRelay();
    const { client, enclave } = await joined(relay);
    const size = await fill(enclave);
    const written = enclave.bytesWritten;
    const whole = collect(client);
    enclave.end();
    expect((await whole).length).toBe(written);
    expect(size).toBeGreaterThan(1 << 17);
  });

  test("with bytes unread: the client is reset", async () => {
    const relay = makeRelay();
    const { client, enclave } = await joined(relay);
    // More than its stream reads ahead.
    await fill(client);
    const failed = once(client.resume(), "error");
    enclave.destroy();
    const [error] = await failed;
    expect(error).toMatchObject({ code: "ECONNRESET" });
  });

  test("after it had ended its writing: the client, which waits for no more, is let go", async () => {
    const relay = makeRelay();
    const { client, enclave } = await joined(relay);
    enclave.end("bye");
    expect(String(await collect(client))).toBe("bye");
    expect(relay.size).toBe(1);
    enclave.destroy();
    await expect.poll(() => relay.size).toBe(0);
  });
});

test("closing resets everyone, twice is once", async () => {
  const relay = makeRelay();
  const { client } = await joined(relay);
  relay.close();
  relay.close();
  const [error] = await once(client.resume(), "error");
  expect(error).toMatchObject({ code: "ECONNRESET" });
  expect(relay.size).toBe(0);
});

test("what a socket is given at once: on vsock, pieces that every kernel carries", () => {
  const { fd } = bindSocket({ port: PORT_ANY });
  const pair = makeSocketPair();
  cleanups.push(() => [fd, ...pair].map(closeDescriptor));
  expect(pieceMax(fd)).toBe(VSOCK_WRITE_MAX);
  expect(pieceMax(pair[0])).toBeGreaterThan(VSOCK_WRITE_MAX);
  expect(() => pieceMax(-1)).toThrow(expect.objectContaining({ code: "EBADF" }));
});
