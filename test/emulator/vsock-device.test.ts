/** The device against a scripted guest: every packet that goes either way is looked at. No VM, no QEMU. */
import { readdirSync, readFileSync } from "node:fs";
import { finished } from "node:stream/promises";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { VsockDevice } from "../../emulator/vsock/device.ts";
import { RECEIVE_WINDOW } from "../../emulator/vsock/inbox.ts";
import {
  emptyHeader,
  HEADER_BYTES,
  OP_CREDIT_REQUEST,
  OP_CREDIT_UPDATE,
  OP_REQUEST,
  OP_RESPONSE,
  OP_RST,
  OP_RW,
  OP_SHUTDOWN,
  type PacketHeader,
  readHeader,
} from "../../emulator/vsock/packet.ts";
import type { VsockStream } from "../../emulator/vsock/stream.ts";
import { CONNECTIONS_MAX } from "../../emulator/vsock/table.ts";
import {
  FakeGuest,
  GUEST_CID,
  type GuestOptions,
  LAYOUT,
  type Packet,
  RING_SIZE,
  RX,
  state,
  TX,
  u64,
  VHOST,
} from "./guest.ts";

const PORT = 9000;
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

interface Setup {
  readonly device: VsockDevice;
  readonly guest: FakeGuest;
  readonly faults: Error[];
}

async function setUp(options: GuestOptions = {}): Promise<Setup> {
  const faults: Error[] = [];
  const device = new VsockDevice({ guestCid: GUEST_CID, onFault: (error) => faults.push(error) });
  const guest = new FakeGuest(device, options);
  cleanups.push(() => {
    device.close();
    guest.close();
  });
  await guest.start();
  return { device, guest, faults };
}

/** A stream that the guest opened from `srcPort`, past REQUEST and RESPONSE. */
async function open(
  { device, guest }: Setup,
  srcPort = 5000,
  request: Partial<PacketHeader> = {},
): Promise<VsockStream> {
  const { promise, resolve } = Promise.withResolvers<VsockStream>();
  const listener = device.listen(PORT, resolve);
  await guest.send({ op: OP_REQUEST, srcPort, dstPort: PORT, ...request });
  expect(await guest.receive()).toMatchObject({
    header: { op: OP_RESPONSE, srcPort: PORT, dstPort: srcPort },
  });
  const stream = await promise;
  listener.close();
  // The clean-up resets what a test left open; before it an error that nobody expects is a failure.
  cleanups.unshift(() => stream.on("error", () => {}));
  return stream;
}

function codeOf(stream: VsockStream): Promise<string> {
  return new Promise((resolve) =>
    stream.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "")),
  );
}

/** Everything up to the guest's end. Unlike `for await`, leaves the stream open for writing. */
function readAll(stream: VsockStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return new Promise((resolve) => stream.once("end", () => resolve(Buffer.concat(chunks))));
}

/** Packets of the device until `count` bytes of payload came; each is a packet of `dstPort`. */
async function receiveBytes(guest: FakeGuest, dstPort: number, count: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for (let bytes = 0; bytes < count; ) {
    const { header, payload } = await guest.receive();
    expect(header.dstPort).toBe(dstPort);
    if (header.op === OP_CREDIT_REQUEST) continue;
    expect(header.op).toBe(OP_RW);
    chunks.push(payload);
    bytes += payload.length;
  }
  return Buffer.concat(chunks);
}

function bytesOf(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + seed + (i >> 8)) & 0xff;
  return bytes;
}

/** After whatever a test did, a new connection still carries bytes both ways. */
async function expectAlive(setup: Setup): Promise<void> {
  const stream = await open(setup, 61_000);
  await setup.guest.send({ op: OP_RW, srcPort: 61_000, dstPort: PORT }, Buffer.from("ping"));
  stream.write("pong");
  expect((await receiveBytes(setup.guest, 61_000, 4)).toString()).toBe("pong");
  expect(String(stream.read())).toBe("ping");
  stream.destroy();
  expect((await setup.guest.receive()).header.op).toBe(OP_RST);
}

describe("connections of the guest", () => {
  test("carry bytes both ways, whatever the chain's shape", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    expect([stream.remoteCid, stream.remotePort, stream.localCid]).toEqual([GUEST_CID, 5000, 3]);
    const data = bytesOf(60_000);
    await setup.guest.send(
      { op: OP_RW, srcPort: 5000, dstPort: PORT },
      data,
      [1, 20, 23, 4096, 30_000, 25_904],
    );
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 2 });
    expect(await readAll(stream)).toEqual(data);
    stream.end(data);
    expect(await receiveBytes(setup.guest, 5000, data.length)).toEqual(data);
    expect((await setup.guest.receive()).header).toMatchObject({ op: OP_SHUTDOWN, flags: 2 });
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
    expect(setup.device.connectionCount).toBe(0);
  });

  test("reach CID 3 and CID 2 by default, and those asked for", async () => {
    const setup = await setUp();
    (await open(setup, 1, { dstCid: 2 })).destroy();
    await setup.guest.receive();
    setup.device.listen(7, (stream) => stream.destroy(), { cids: [0] });
    await setup.guest.send({ op: OP_REQUEST, srcPort: 2, dstPort: 7, dstCid: 0 });
    // Destroyed before RESPONSE went out: to the guest that is a refusal.
    expect((await setup.guest.receive()).header).toMatchObject({ op: OP_RST, srcCid: 0 });
    await setup.guest.send({ op: OP_REQUEST, srcPort: 3, dstPort: 7 });
    expect((await setup.guest.receive()).header).toMatchObject({ op: OP_RST, srcCid: 3, dstPort: 3 });
  });

  test("are refused at once where nobody listens, and where nobody listens any more", async () => {
    const { device, guest } = await setUp();
    device.listen(PORT, () => {}).close();
    await guest.send({ op: OP_REQUEST, srcPort: 5, dstPort: PORT });
    const { header } = await guest.receive();
    expect(header).toMatchObject({
      op: OP_RST,
      srcCid: 3,
      dstCid: GUEST_CID,
      srcPort: PORT,
      dstPort: 5,
      type: 1,
      length: 0,
    });
    expect(device.connectionCount).toBe(0);
  });

  test("one port has one listener", async () => {
    const { device } = await setUp();
    device.listen(PORT, () => {}, { cids: [2] });
    expect(() => device.listen(PORT, () => {})).toThrow("bind(vsock 2:9000): EADDRINUSE");
    device.listen(PORT, () => {}, { cids: [3] });
  });

  test("get their news also when the owner of another throws", async () => {
    const setup = await setUp();
    const first = await open(setup, 1);
    const second = await open(setup, 2);
    const ended = readAll(second);
    first.on("data", () => {
      throw new Error("an owner's own");
    });
    const listeners = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    const thrown = new Promise<Error>((resolve) => process.once("uncaughtException", resolve));
    try {
      setup.guest.put({ op: OP_RW, srcPort: 1, dstPort: PORT }, Buffer.from("x"));
      setup.guest.put({ op: OP_RW, srcPort: 2, dstPort: PORT }, Buffer.from("for the second"));
      setup.guest.put({ op: OP_SHUTDOWN, srcPort: 2, dstPort: PORT, flags: 2 });
      setup.guest.kick(TX);
      expect((await thrown).message).toBe("an owner's own");
      expect((await ended).toString()).toBe("for the second");
    } finally {
      for (const listener of listeners) process.on("uncaughtException", listener);
    }
  });

  test("are no more than the table holds", async () => {
    const setup = await setUp();
    setup.device.listen(PORT, (stream) => stream.on("error", () => {}));
    for (let port = 1; port <= CONNECTIONS_MAX + 1; port++) {
      await setup.guest.send({ op: OP_REQUEST, srcPort: port, dstPort: PORT });
      const { header } = await setup.guest.receive();
      expect(header.op).toBe(port <= CONNECTIONS_MAX ? OP_RESPONSE : OP_RST);
    }
    await expect(setup.device.connect(1)).rejects.toMatchObject({ code: "EADDRNOTAVAIL" });
  });
});

describe("connections to the guest", () => {
  test("carry bytes; the guest sees CID 3 or the one asked for", async () => {
    const { device, guest } = await setUp();
    const connecting = device.connect(77, { sourceCid: 2 });
    const { header } = await guest.receive();
    expect(header).toMatchObject({
      op: OP_REQUEST,
      srcCid: 2,
      dstCid: GUEST_CID,
      dstPort: 77,
      bufferSize: RECEIVE_WINDOW,
    });
    await guest.send({ op: OP_RESPONSE, srcPort: 77, dstPort: header.srcPort, dstCid: 2 });
    const stream = await connecting;
    cleanups.unshift(() => stream.on("error", () => {}));
    stream.write("hello");
    expect((await receiveBytes(guest, 77, 5)).toString()).toBe("hello");
    const other = expect(device.connect(77)).rejects.toMatchObject({
      code: "ECONNRESET",
      syscall: "connect",
    });
    const second = await guest.receive();
    expect(second.header).toMatchObject({ srcCid: 3 });
    expect(second.header.srcPort).not.toBe(header.srcPort);
    await guest.send({ op: OP_RST, srcPort: 77, dstPort: second.header.srcPort });
    await other;
  });

  test("time out, and a late answer is reset", async () => {
    const { device, guest } = await setUp();
    const connecting = device.connect(77, { timeoutMs: 20 });
    const { header } = await guest.receive();
    await expect(connecting).rejects.toMatchObject({ code: "ETIMEDOUT" });
    expect((await guest.receive()).header).toMatchObject({ op: OP_RST, srcPort: header.srcPort });
    await guest.send({ op: OP_RESPONSE, srcPort: 77, dstPort: header.srcPort });
    expect((await guest.receive()).header.op).toBe(OP_RST);
    expect(device.connectionCount).toBe(0);
  });

  test("a REQUEST that never left needs no RST", async () => {
    const { device, guest } = await setUp({ rxBuffers: 0 });
    await expect(device.connect(77, { timeoutMs: 10 })).rejects.toMatchObject({ code: "ETIMEDOUT" });
    expect(device.connectionCount).toBe(0);
    guest.giveRxBuffer(0);
    guest.kick(RX);
    await guest.send({ op: OP_REQUEST, srcPort: 1, dstPort: 1 });
    expect((await guest.receive()).header).toMatchObject({ op: OP_RST, dstPort: 1 });
  });

  test("data before RESPONSE is refused", async () => {
    const { device, guest } = await setUp();
    const connecting = expect(device.connect(77)).rejects.toThrow("operation 5 before RESPONSE");
    const { header } = await guest.receive();
    await guest.send({ op: OP_RW, srcPort: 77, dstPort: header.srcPort }, Buffer.from("early"));
    await connecting;
    expect((await guest.receive()).header.op).toBe(OP_RST);
  });
});

describe("credit", () => {
  test("of the guest is never overdrawn; it is asked once and resumes", async () => {
    const setup = await setUp();
    const stream = await open(setup, 5000, { bufferSize: 10_000 });
    const data = bytesOf(25_000);
    stream.end(data);
    expect(await receiveBytes(setup.guest, 5000, 10_000)).toEqual(data.subarray(0, 10_000));
    expect((await setup.guest.receive()).header.op).toBe(OP_CREDIT_REQUEST);
    // An update that makes no room changes nothing.
    await setup.guest.send({ op: OP_CREDIT_UPDATE, srcPort: 5000, dstPort: PORT, bufferSize: 10_000 });
    await setup.guest.send({
      op: OP_CREDIT_UPDATE,
      srcPort: 5000,
      dstPort: PORT,
      bufferSize: 10_000,
      forwarded: 4000,
    });
    expect(await receiveBytes(setup.guest, 5000, 4000)).toEqual(data.subarray(10_000, 14_000));
    expect((await setup.guest.receive()).header.op).toBe(OP_CREDIT_REQUEST);
    expect(setup.guest.tryReceive()).toBeUndefined();
    await setup.guest.send({
      op: OP_CREDIT_UPDATE,
      srcPort: 5000,
      dstPort: PORT,
      bufferSize: 20_000,
      forwarded: 14_000,
    });
    expect(await receiveBytes(setup.guest, 5000, 11_000)).toEqual(data.subarray(14_000));
    expect((await setup.guest.receive()).header.op).toBe(OP_SHUTDOWN);
  });

  test("a guest that claims to have taken more than it got stalls itself", async () => {
    const setup = await setUp();
    const stream = await open(setup, 5000, { bufferSize: 100, forwarded: 5 });
    stream.write(bytesOf(50));
    expect((await setup.guest.receive()).header.op).toBe(OP_CREDIT_REQUEST);
    await setup.guest.send({ op: OP_CREDIT_UPDATE, srcPort: 5000, dstPort: PORT, bufferSize: 100 });
    expect(await receiveBytes(setup.guest, 5000, 50)).toEqual(bytesOf(50));
  });

  test("of ours is told at half a window, and with every packet", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    stream.resume();
    const step = 32 * 1024;
    for (let i = 0; i < 4; i++)
      await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, bytesOf(step));
    expect((await setup.guest.receive()).header).toMatchObject({
      op: OP_CREDIT_UPDATE,
      forwarded: RECEIVE_WINDOW / 2,
    });
    await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, bytesOf(step));
    stream.write("x");
    expect((await setup.guest.receive()).header).toMatchObject({
      op: OP_RW,
      forwarded: RECEIVE_WINDOW / 2 + step,
    });
    await setup.guest.send({ op: OP_CREDIT_REQUEST, srcPort: 5000, dstPort: PORT });
    expect((await setup.guest.receive()).header).toMatchObject({
      op: OP_CREDIT_UPDATE,
      forwarded: RECEIVE_WINDOW / 2 + step,
    });
  });

  test("a reader that stalls stalls itself only, and keeps every byte", async () => {
    const setup = await setUp();
    const stalled = await open(setup, 5000);
    const half = bytesOf(RECEIVE_WINDOW / 4);
    for (let i = 0; i < 4; i++) await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, half);
    await expectAlive(setup);
    const received: Buffer[] = [];
    stalled.on("data", (chunk: Buffer) => received.push(chunk));
    expect((await setup.guest.receive()).header).toMatchObject({ op: OP_CREDIT_UPDATE, dstPort: 5000 });
    expect((await setup.guest.receive()).header).toMatchObject({
      op: OP_CREDIT_UPDATE,
      forwarded: RECEIVE_WINDOW,
    });
    expect(Buffer.concat(received)).toEqual(Buffer.concat([half, half, half, half]));
  });

  test("a guest that sends past our window is reset", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    const error = codeOf(stream);
    for (let i = 0; i < 4; i++)
      await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, bytesOf(RECEIVE_WINDOW / 4));
    expect(setup.guest.tryReceive()).toBeUndefined();
    await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from("x"));
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
    expect(await error).toBe("ECONNRESET");
  });

  test("a window of single bytes is a handful of chunks", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    for (let sent = 0; sent < 100_000; ) {
      for (let i = 0; i < RING_SIZE / 2; i++, sent++) {
        setup.guest.put({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from([sent & 0xff]));
      }
      await setup.guest.send({ op: OP_CREDIT_UPDATE, srcPort: 5000, dstPort: PORT });
    }
    let chunks = 0;
    const reading = readAll(stream.on("data", () => chunks++));
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 2 });
    const all = await reading;
    expect(all.every((byte, i) => byte === (i & 0xff))).toBe(true);
    expect(all.length).toBeGreaterThanOrEqual(100_000);
    expect(chunks).toBeLessThan(30);
  });
});

describe("the rx ring", () => {
  test("without buffers keeps everyone waiting, then goes on", async () => {
    const setup = await setUp({ rxBuffers: 1 });
    const stream = await open(setup);
    const data = bytesOf(20_000);
    stream.end(data);
    expect(await receiveBytes(setup.guest, 5000, data.length)).toEqual(data);
  });

  test("takes headers apart where the guest's buffers are", async () => {
    const setup = await setUp({ rxBuffers: 0 });
    const { guest, device } = setup;
    const [first, second] = [LAYOUT.rxBuffers, LAYOUT.rxBuffers + 8192];
    guest.setDescriptor(LAYOUT.descriptors[RX], 0, first, 20, 3, 1);
    guest.setDescriptor(LAYOUT.descriptors[RX], 1, second, 100, 2, 0);
    guest.offer(RX, 0);
    device.connect(0x1234_5678, { timeoutMs: 60_000 }).catch(() => {});
    await guest.until(() => guest.usedIndex(RX) === 1);
    const bytes = new Uint8Array(HEADER_BYTES);
    bytes.set(guest.memory.subarray(first, first + 20));
    bytes.set(guest.memory.subarray(second, second + 24), 20);
    const header = emptyHeader();
    readHeader(new DataView(bytes.buffer), 0, header);
    expect(header).toMatchObject({
      op: OP_REQUEST,
      srcCid: 3,
      dstCid: GUEST_CID,
      dstPort: 0x1234_5678,
      type: 1,
    });
  });

  test("and the tx ring go on after a ring full of packets", async () => {
    const setup = await setUp();
    const stream = await open(setup, 5000, { bufferSize: 4 * 1024 * 1024 });
    const data = bytesOf(3 * RING_SIZE * 4096);
    stream.write(data);
    expect(await receiveBytes(setup.guest, 5000, data.length)).toEqual(data);
    const reading = readAll(stream);
    for (let i = 0; i < 3; i++) {
      for (let k = 1; k < RING_SIZE; k++)
        setup.guest.put({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from([k]));
      await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from([0]));
    }
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 2 });
    expect(await reading).toHaveLength(3 * RING_SIZE);
  });

  test("is shared in turn", async () => {
    const setup = await setUp({ rxBuffers: 2 });
    const [first, second] = [await open(setup, 1), await open(setup, 2)];
    first.write(bytesOf(40_000));
    second.write(bytesOf(40_000));
    const order: number[] = [];
    for (let i = 0; i < 12; i++) order.push((await setup.guest.receive()).header.dstPort);
    // `first` filled both buffers before there was a `second`; from then on they take turns.
    expect(order.slice(2)).toEqual([1, 2, 1, 2, 1, 2, 1, 2, 1, 2].map((_, i) => order[2 + (i % 2)]));
    expect(new Set(order.slice(2, 4))).toEqual(new Set([1, 2]));
  });

  test("interrupts once for many packets, and not where the guest wants none", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    const before = setup.guest.calls[RX] as number;
    stream.write(bytesOf(100_000));
    await receiveBytes(setup.guest, 5000, 100_000);
    await setup.guest.until(() => (setup.guest.calls[RX] as number) > before);
    setup.guest.setAvailableFlags(RX, 1);
    stream.write(bytesOf(100_000));
    expect(setup.guest.usedIndex(RX)).toBeGreaterThan(20);
    await receiveBytes(setup.guest, 5000, 100_000);
    // The tx ring's interrupt comes after any that the rx ring should not have had.
    await setup.guest.send({ op: OP_CREDIT_UPDATE, srcPort: 5000, dstPort: PORT });
    expect((setup.guest.calls[RX] as number) - before).toBe(1);
  });
});

describe("the end", () => {
  test("of the guest's direction leaves ours open, and the other way round", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 2 });
    expect(await readAll(stream.resume())).toHaveLength(0);
    stream.write("still here");
    expect((await receiveBytes(setup.guest, 5000, 10)).toString()).toBe("still here");

    const other = await open(setup, 6000);
    other.end("bye");
    await receiveBytes(setup.guest, 6000, 3);
    expect((await setup.guest.receive()).header).toMatchObject({ op: OP_SHUTDOWN, flags: 2 });
    await setup.guest.send({ op: OP_RW, srcPort: 6000, dstPort: PORT }, Buffer.from("answer"));
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 6000, dstPort: PORT, flags: 2 });
    expect((await readAll(other)).toString()).toBe("answer");
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
  });

  test("of both directions by the guest is answered with RST, keeps bytes, fails writes with EPIPE", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from("last words"));
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 3 });
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
    expect(setup.device.connectionCount).toBe(0);
    expect(String(stream.read())).toBe("last words");
    const error = codeOf(stream);
    stream.write("too late");
    expect(await error).toBe("EPIPE");
  });

  test("of both directions, then of ours, is clean", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 3 });
    stream.resume().end();
    await finished(stream);
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
    expect(setup.guest.tryReceive()).toBeUndefined();
  });

  test("by a guest that takes no more bytes fails the write that waits", async () => {
    const setup = await setUp();
    const stream = await open(setup, 5000, { bufferSize: 10 });
    const error = codeOf(stream);
    stream.write(bytesOf(100));
    await receiveBytes(setup.guest, 5000, 10);
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 1, bufferSize: 10 });
    expect(await error).toBe("EPIPE");
  });

  test("at the same time from both sides is clean", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    setup.guest.put({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 3 });
    stream.resume().end();
    setup.guest.kick(TX);
    await finished(stream);
    const ops = [(await setup.guest.receive()).header.op, (await setup.guest.receive()).header.op];
    expect(ops).toEqual([OP_SHUTDOWN, OP_RST]);
    expect(setup.device.connectionCount).toBe(0);
  });

  test("by destroy() resets, also with writes that wait", async () => {
    const setup = await setUp();
    const stream = await open(setup, 5000, { bufferSize: 10 });
    stream.write(bytesOf(100));
    await receiveBytes(setup.guest, 5000, 10);
    stream.destroy();
    let packet = await setup.guest.receive();
    if (packet.header.op === OP_CREDIT_REQUEST) packet = await setup.guest.receive();
    expect(packet.header.op).toBe(OP_RST);
    expect(setup.device.connectionCount).toBe(0);
    await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from("x"));
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
  });

  test("by the guest's RST is ECONNRESET, but clean after its SHUTDOWN", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    const error = codeOf(stream);
    await setup.guest.send({ op: OP_RST, srcPort: 5000, dstPort: PORT });
    expect(await error).toBe("ECONNRESET");
    const other = await open(setup, 6000);
    await setup.guest.send({ op: OP_RW, srcPort: 6000, dstPort: PORT }, Buffer.from("all"));
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 6000, dstPort: PORT, flags: 2 });
    await setup.guest.send({ op: OP_RST, srcPort: 6000, dstPort: PORT });
    other.end();
    expect((await readAll(other)).toString()).toBe("all");
    expect(setup.guest.tryReceive()).toBeUndefined();
  });

  test("of QEMU resets every stream and settles `closed`", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    const error = codeOf(stream);
    const connecting = expect(setup.device.connect(77)).rejects.toMatchObject({ code: "ECONNRESET" });
    setup.guest.close();
    cleanups.length = 0;
    await setup.device.closed;
    expect(await error).toBe("ECONNRESET");
    await connecting;
    await expect(setup.device.connect(77)).rejects.toMatchObject({ code: "ECONNRESET" });
    expect(setup.faults).toEqual([]);
    setup.device.close();
  });
});

describe("nonsense", () => {
  const rows: readonly { name: string; packet: Partial<PacketHeader> }[] = [
    { name: "data for a connection that is none", packet: { op: OP_RW } },
    { name: "SHUTDOWN for a connection that is none", packet: { op: OP_SHUTDOWN, flags: 3 } },
    { name: "a destination that is not the parent", packet: { op: OP_REQUEST, dstCid: 4711 } },
    { name: "someone else's CID as source", packet: { op: OP_REQUEST, srcCid: 17, dstPort: PORT } },
    { name: "type seqpacket", packet: { op: OP_REQUEST, type: 2, dstPort: PORT } },
    { name: "operation 0", packet: { op: 0 } },
    { name: "operation 65535", packet: { op: 65_535 } },
    { name: "a length past the chain", packet: { op: OP_REQUEST, length: 1, dstPort: PORT } },
  ];
  test.each(rows)("$name is answered with RST", async ({ packet }) => {
    const setup = await setUp();
    const accepted: unknown[] = [];
    setup.device.listen(PORT, (stream) => accepted.push(stream)).close();
    setup.device.listen(PORT, (stream) => accepted.push(stream), { cids: [3, 2, 4712] });
    await setup.guest.send({ srcPort: 5, dstPort: 6, ...packet });
    expect((await setup.guest.receive()).header).toMatchObject({
      op: OP_RST,
      dstPort: 5,
      dstCid: packet.srcCid ?? GUEST_CID,
    });
    expect(accepted).toEqual([]);
    expect(setup.faults).toEqual([]);
  });

  test("RST is never answered", async () => {
    const setup = await setUp();
    await setup.guest.send({ op: OP_RST, srcPort: 5, dstPort: 6 });
    await setup.guest.send({ op: OP_RST, srcPort: 5, dstPort: 6, type: 9 });
    await setup.guest.send({ op: OP_REQUEST, srcPort: 5, dstPort: 7 });
    expect((await setup.guest.receive()).header.srcPort).toBe(7);
  });

  test.each([
    { name: "a second REQUEST", packet: { op: OP_REQUEST } },
    { name: "a RESPONSE", packet: { op: OP_RESPONSE } },
    { name: "operation 99", packet: { op: 99 } },
    { name: "a length past the chain", packet: { op: OP_RW, length: 0xffff_ffff } },
    { name: "another type", packet: { op: OP_RW, type: 2 } },
  ])("$name on an open connection costs it", async ({ packet }) => {
    const setup = await setUp();
    const stream = await open(setup);
    const error = codeOf(stream);
    await setup.guest.send({ srcPort: 5000, dstPort: PORT, ...packet });
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
    expect(await error).toBe("ECONNRESET");
    await expectAlive(setup);
  });

  test("data after SHUTDOWN costs the connection what follows only", async () => {
    const setup = await setUp();
    const stream = await open(setup);
    const error = codeOf(stream);
    await setup.guest.send({ op: OP_SHUTDOWN, srcPort: 5000, dstPort: PORT, flags: 2 });
    await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, Buffer.from("x"));
    expect((await setup.guest.receive()).header.op).toBe(OP_RST);
    expect(await error).toBe("ECONNRESET");
  });

  test("a flood of it with no buffers for answers keeps nothing", async () => {
    const setup = await setUp({ rxBuffers: 0 });
    for (let i = 0; i < 50; i++) {
      for (let k = 0; k < 60; k++) setup.guest.put({ op: OP_RW, srcPort: i * 60 + k, dstPort: 6 });
      await setup.guest.send({ op: OP_RST });
    }
    for (let i = 0; i < RING_SIZE; i++) setup.guest.giveRxBuffer(i);
    setup.guest.kick(RX);
    const packets: Packet[] = [];
    for (let i = 0; i < 256; i++) packets.push(await setup.guest.receive());
    expect(packets.map(({ header }) => header.dstPort)).toEqual(Array.from({ length: 256 }, (_, i) => i));
    await expectAlive(setup);
  });

  test("random packets never break the device", async () => {
    const setup = await setUp();
    setup.device.listen(PORT, (stream) => stream.on("error", () => {}).resume());
    const counts = { response: 0, reset: 0 };
    const small = (...likely: number[]) =>
      fc.oneof(
        { weight: 9, arbitrary: fc.constantFrom(...likely) },
        { weight: 1, arbitrary: fc.nat(0xffff) },
      );
    const packets = fc.record({
      srcCid: small(GUEST_CID),
      dstCid: small(3, 2, 0),
      srcPort: fc.nat(3),
      dstPort: small(PORT),
      length: small(0, 4, 100),
      type: small(1),
      op: small(1, 2, 3, 4, 5, 6, 7),
      flags: small(0, 1, 2, 3),
      bufferSize: fc.nat(0xffff_ffff),
      forwarded: fc.nat(0xffff_ffff),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(packets, { maxLength: 20 }), async (list) => {
        for (const packet of list) await setup.guest.send(packet, bytesOf(packet.op === OP_RW ? 4 : 0));
        for (let packet = setup.guest.tryReceive(); packet !== undefined; packet = setup.guest.tryReceive()) {
          if (packet.header.op === OP_RESPONSE) counts.response++;
          if (packet.header.op === OP_RST) counts.reset++;
        }
      }),
      { numRuns: 300 },
    );
    expect(setup.faults).toEqual([]);
    expect(counts.response).toBeGreaterThan(10);
    expect(counts.reset).toBeGreaterThan(10);
    for (let packet = setup.guest.tryReceive(); packet !== undefined; ) packet = setup.guest.tryReceive();
  });
});

describe("a ring that the driver breaks", () => {
  const rows: readonly { name: string; ring: number; set: (guest: FakeGuest) => void; error: string }[] = [
    {
      name: "tx available index",
      ring: TX,
      set: (guest) => guest.setAvailableIndex(TX, 999),
      error: "vsock tx queue: available index 999",
    },
    {
      name: "tx head",
      ring: TX,
      set: (guest) => guest.offer(TX, RING_SIZE),
      error: "vsock tx queue, chain 128: descriptor 128 of 128",
    },
    {
      name: "tx chain shorter than a header",
      ring: TX,
      set: (guest) => guest.put({}, undefined, [HEADER_BYTES - 1]),
      error: "43 bytes, expected a header of 44",
    },
    {
      name: "tx buffer outside memory",
      ring: TX,
      set: (guest) => {
        guest.setDescriptor(LAYOUT.descriptors[TX], 9, 1n << 60n, 44, 0, 0);
        guest.offer(TX, 9);
      },
      error: "vsock tx queue, chain 9: descriptor 9: 44 bytes at guest address 0x1000000000000000",
    },
    {
      name: "rx buffer without room",
      ring: RX,
      set: (guest) => {
        guest.setDescriptor(LAYOUT.descriptors[RX], 0, LAYOUT.rxBuffers, HEADER_BYTES, 2, 0);
        guest.offer(RX, 0);
      },
      error: "vsock rx queue, chain 0: buffer of 44 bytes, too small for a packet",
    },
    {
      name: "rx buffer that is read-only",
      ring: RX,
      set: (guest) => {
        guest.setDescriptor(LAYOUT.descriptors[RX], 0, LAYOUT.rxBuffers, 4096, 0, 0);
        guest.offer(RX, 0);
      },
      error: "vsock rx queue, chain 0: descriptor 0: flags 0, expected device-writable",
    },
  ];
  test.each(rows)(
    "$name: the device stops, says what, and starts again after a reset",
    async ({ ring, set, error }) => {
      const setup = await setUp({ rxBuffers: 1 });
      const stream = await open(setup);
      const { guest, faults } = setup;
      // The one rx buffer is with the device again: take it away.
      stream.write("x");
      await guest.receive(true);
      const code = codeOf(stream);
      set(guest);
      if (ring === RX) stream.write("y");
      guest.kick(ring);
      expect(await code).toBe("ECONNRESET");
      expect(faults.map(({ message }) => message)).toEqual([expect.stringContaining(error)]);
      await guest.stopRings();
      guest.resetRings();
      await guest.startRings();
      await expectAlive(setup);
    },
  );
});

describe("vhost-user", () => {
  test("features, configuration and acknowledged messages", async () => {
    const { guest, device } = await setUp();
    expect((await guest.ask(VHOST.GET_FEATURES)).readBigUInt64LE(0)).toBe(
      (1n << 32n) | (1n << 30n) | (1n << 28n),
    );
    expect((await guest.ask(VHOST.GET_PROTOCOL_FEATURES)).readBigUInt64LE(0)).toBe((1n << 9n) | (1n << 3n));
    expect((await guest.ask(VHOST.GET_QUEUE_NUM)).readBigUInt64LE(0)).toBe(2n);
    const config = Buffer.alloc(20);
    config.writeUInt32LE(8, 4);
    expect((await guest.ask(VHOST.GET_CONFIG, config)).toString("hex")).toBe(
      "0000000008000000000000001000000000000000",
    );
    expect((await guest.ask(VHOST.SET_OWNER, new Uint8Array(0), [], 0x9)).readBigUInt64LE(0)).toBe(0n);
    expect(device.connectionCount).toBe(0);
  });

  test("rings stop and go on with their connections; a driver that starts anew has none", async () => {
    const setup = await setUp({ rxBuffers: 0 });
    setup.guest.giveRxBuffer(0);
    setup.guest.kick(RX);
    const stream = await open(setup);
    const base = await setup.guest.stopRings();
    expect(base).toEqual([1, 1]);
    await setup.guest.startRings(base);
    stream.write("on");
    expect((await receiveBytes(setup.guest, 5000, 2)).toString()).toBe("on");
    const error = codeOf(stream);
    await setup.guest.stopRings();
    setup.guest.resetRings();
    await setup.guest.startRings();
    expect(await error).toBe("ECONNRESET");
  });

  test("a connect before the first driver waits for it", async () => {
    const device = new VsockDevice({ guestCid: GUEST_CID });
    const guest = new FakeGuest(device);
    cleanups.push(() => {
      device.close();
      guest.close();
    });
    const connecting = device.connect(77);
    await guest.start();
    const { header } = await guest.receive();
    await guest.send({ op: OP_RESPONSE, srcPort: 77, dstPort: header.srcPort });
    (await connecting).destroy();
  });

  test("a new call descriptor is signalled at once: what was used before it would stay unseen", async () => {
    const { guest } = await setUp();
    const before = guest.calls[RX] as number;
    guest.postCall(RX);
    await guest.until(() => (guest.calls[RX] as number) > before);
  });

  test("a REQUEST that never left goes to the next driver", async () => {
    const { device, guest } = await setUp({ rxBuffers: 0 });
    await guest.send({ op: OP_RST });
    device.connect(77).catch(() => {});
    await guest.stopRings();
    guest.resetRings();
    await guest.startRings();
    guest.giveRxBuffer(0);
    guest.kick(RX);
    expect((await guest.receive()).header).toMatchObject({ op: OP_REQUEST, dstPort: 77 });
  });

  test("memory in two regions, and memory that is told anew while rings run", async () => {
    const setup = await setUp({ splitAt: LAYOUT.txBuffers + 8 * 4096 });
    const stream = await open(setup);
    const data = bytesOf(60_000);
    await setup.guest.send({ op: OP_RW, srcPort: 5000, dstPort: PORT }, data);
    expect(stream.read()).toEqual(data);
    setup.guest.setMemory();
    await expectAlive(setup);
  });

  const rows: readonly { name: string; post: (guest: FakeGuest) => void; error: string }[] = [
    {
      name: "unknown request",
      post: (guest) => guest.post(99, u64(0n)),
      error: "request 99, which goes with no feature",
    },
    {
      name: "ring past the last",
      post: (guest) => guest.post(VHOST.SET_VRING_NUM, state(2, 128)),
      error: "SET_VRING_NUM: ring 2 of 2",
    },
    {
      name: "version 0",
      post: (guest) => guest.post(VHOST.SET_OWNER, new Uint8Array(0), [], 0),
      error: "SET_OWNER with flags 0",
    },
    {
      name: "size past every message",
      post: (guest) => guest.postBytes(new Uint8Array(new Uint32Array([1, 1, 0xffff_ffff]).buffer)),
      error: "message of 4294967295 bytes, at most 4096",
    },
    {
      name: "kick without a descriptor",
      post: (guest) => guest.post(VHOST.SET_VRING_KICK, u64(0n)),
      error: "0 descriptors, expected 1",
    },
    {
      name: "kick that wants polling",
      post: (guest) => guest.post(VHOST.SET_VRING_KICK, u64(0x100n)),
      error: "we do not poll",
    },
    {
      name: "short payload",
      post: (guest) => guest.post(VHOST.SET_FEATURES, new Uint8Array(4)),
      error: "Offset is outside",
    },
    {
      name: "memory table without files",
      post: (guest) => guest.post(VHOST.SET_MEM_TABLE, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0])),
      error: "1 regions with 0 descriptors",
    },
    {
      name: "configuration past its message",
      post: (guest) => guest.post(VHOST.GET_CONFIG, new Uint8Array(new Uint32Array([0, 9, 0]).buffer)),
      error: "GET_CONFIG of 9 bytes in 12",
    },
    {
      name: "ring size 3",
      post: (guest) => {
        guest.post(VHOST.SET_VRING_ENABLE, state(0, 0));
        guest.post(VHOST.SET_VRING_NUM, state(0, 3));
        guest.post(VHOST.SET_VRING_ENABLE, state(0, 1));
      },
      error: "vsock rx queue: size 3",
    },
  ];
  test.each(rows)("$name ends the session with an error", async ({ post, error }) => {
    const { device, guest, faults } = await setUp();
    post(guest);
    await device.closed;
    expect(faults.map(({ message }) => message)).toEqual([expect.stringContaining(error)]);
  });

  test("a message in single bytes, its descriptor with the first", async () => {
    const { guest } = await setUp();
    const kick = Buffer.concat([new Uint8Array(new Uint32Array([VHOST.GET_QUEUE_NUM, 1, 0]).buffer)]);
    for (const byte of kick.subarray(0, -1)) guest.postBytes(new Uint8Array([byte]));
    const rest = kick.subarray(-1);
    guest.postBytes(rest);
    await guest.until(() => guest.hasReply);
  });

  test("devices that come and go leave no descriptor and no mapping", async () => {
    const count = () =>
      readdirSync("/proc/self/fd").length +
      readFileSync("/proc/self/maps", "utf8").split("memfd:guest").length;
    const once = async () => {
      const setup = await setUp();
      const stream = await open(setup);
      stream.on("error", () => {});
      setup.device.close();
      setup.guest.close();
      cleanups.length = 0;
      await setup.device.closed;
      await new Promise((resolve) => setImmediate(resolve));
    };
    await once();
    const before = count();
    for (let i = 0; i < 20; i++) await once();
    expect(count()).toBeLessThanOrEqual(before);
  });
});
