/** The NSM's vsock port: framing, one exchange at a time, and guests that do not play by the rules. */
import { once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import fc from "fast-check";
import { expect, test } from "vitest";
import { serveNsm } from "../../emulator/nsm/service.ts";
import { PORT_NSM } from "../../format/abi.ts";
import { encodeFrame, FrameDecoder } from "../../format/frame.ts";
import { concat } from "../../format/struct.ts";
import type { VsockStream } from "../../launcher/device.ts";

type OnConnection = (stream: VsockStream) => void;
type Answer = (request: Uint8Array) => Promise<Uint8Array>;

/** A served module, and how to connect to it. */
function serve(answer: Answer): () => Duplex {
  let connected: OnConnection = () => {};
  const listen = (port: number, onConnection: unknown) => {
    expect(port).toBe(PORT_NSM);
    connected = onConnection as OnConnection;
    return { close() {} };
  };
  serveNsm({ listen } as Parameters<typeof serveNsm>[0], { answer });
  return () => {
    const [guest, host] = duplexPair();
    connected(Object.assign(host, { remoteCid: 16, remotePort: 1 }) as unknown as VsockStream);
    return guest;
  };
}

async function answersOf(guest: Duplex): Promise<number[][]> {
  const decoder = new FrameDecoder(12_288);
  const answers: number[][] = [];
  for await (const chunk of guest) for (const answer of decoder.push(chunk)) answers.push([...answer]);
  return answers;
}

const echo: Answer = async (request) => request;

test("requests are answered in order, however they are cut, one at a time", async () => {
  let busy = 0;
  const connect = serve(async (request) => {
    expect(++busy).toBe(1);
    await new Promise((next) => setImmediate(next));
    busy--;
    return request;
  });
  const requests = Array.from({ length: 20 }, (_, i) => Uint8Array.of(i, 1, 2));
  const stream = concat(requests.map(encodeFrame));
  const guest = connect();
  for (let i = 0; i < stream.length; i += 5) guest.write(stream.subarray(i, i + 5));
  guest.end();
  expect(await answersOf(guest)).toEqual(requests.map((request) => [...request]));
});

test("a message over 4096 bytes ends the connection, and no other", async () => {
  const connect = serve(echo);
  const [bad, good] = [connect(), connect()];
  bad.on("error", () => {});
  bad.write(Uint8Array.of(0, 0, 0x10, 1));
  await once(bad, "close");
  good.end(encodeFrame(Uint8Array.of(7)));
  expect(await answersOf(good)).toEqual([[7]]);
});

test("a guest that takes no answers is asked for no more requests", async () => {
  let answered = 0;
  const connect = serve(async () => {
    answered++;
    return new Uint8Array(12_000);
  });
  const guest = connect();
  const frame = encodeFrame(new Uint8Array(1));
  for (let i = 0; i < 1000; i++) guest.write(frame);
  await expect.poll(() => answered).toBeGreaterThan(0);
  for (let turn = 0; turn < 100; turn++) await new Promise((next) => setImmediate(next));
  expect(answered).toBeLessThan(10);
  guest.end();
  expect(await answersOf(guest)).toHaveLength(1000);
});

test.each([
  ["while its answer is made", 0],
  ["while answers wait to be taken", 5],
])("one that goes away %s leaves nothing behind", async (_, turns) => {
  let release = Promise.withResolvers<void>();
  const connect = serve(async () => {
    await release.promise;
    return new Uint8Array(12_000);
  });
  const settle = async (count: number) => {
    for (let turn = 0; turn < count; turn++) await new Promise((next) => setImmediate(next));
  };
  // More than may be open at once.
  for (let round = 0; round < 70; round++) {
    release = Promise.withResolvers<void>();
    const guest = connect();
    guest.on("error", () => {});
    for (let i = 0; i < 20; i++) guest.write(encodeFrame(new Uint8Array(1)));
    await settle(2);
    if (turns > 0) release.resolve();
    await settle(turns);
    guest.destroy(new Error("gone"));
    await settle(2);
    release.resolve();
    await settle(5);
  }
  const good = connect();
  good.end(encodeFrame(Uint8Array.of(7)));
  expect(await answersOf(good)).toHaveLength(1);
});

test("64 connections at once, and no more until one ends", async () => {
  const connect = serve(echo);
  const guests = Array.from({ length: 64 }, connect);
  const extra = connect();
  // What duplexPair() makes of a destroy() on the other side.
  await once(extra.resume(), "end");
  guests[0]?.end();
  await once(guests[0]?.resume() as Duplex, "end");
  const next = connect();
  next.end(encodeFrame(Uint8Array.of(9)));
  expect(await answersOf(next)).toEqual([[9]]);
  for (const guest of guests) guest.destroy();
});

test("any bytes: answers or an end", async () => {
  const connect = serve(echo);
  let frames = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 8 }), async (chunks) => {
      const guest = connect();
      guest.on("error", () => {});
      for (const chunk of [...chunks, encodeFrame(Uint8Array.of(1))]) guest.write(chunk);
      guest.end();
      frames += (await answersOf(guest).catch(() => [])).length;
    }),
    { numRuns: 100 },
  );
  expect(frames).toBeGreaterThan(0);
});
