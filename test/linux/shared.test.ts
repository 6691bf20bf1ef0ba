/** Memory, descriptors and wake-ups that processes share: what a vhost-user device stands on. */
import { fstatSync, readdirSync, readSync, writeSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { closeDescriptor, makeSocketPair } from "../../linux/descriptor.ts";
import { createEvent, signalEvent, takeEvent, watchReadable } from "../../linux/event.ts";
import {
  adviseMemory,
  createMemoryFile,
  MADV_DONTNEED,
  mapAnonymous,
  mapShared,
} from "../../linux/memory.ts";
import { receiveMessage, sendMessage } from "../../linux/message.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function owned(...descriptors: readonly number[]): void {
  cleanups.push(() => {
    for (const descriptor of descriptors) closeDescriptor(descriptor);
  });
}

function descriptorCount(): number {
  return readdirSync("/proc/self/fd").length;
}

describe("memory", () => {
  test("two mappings of a file are the same bytes, from an offset too", () => {
    const file = createMemoryFile("test", 8192);
    owned(file);
    const [whole, second] = [mapShared(file, 8192), mapShared(file, 4096, 4096)];
    whole.bytes[4097] = 42;
    expect(second.bytes[1]).toBe(42);
    Atomics.store(new Uint16Array(second.bytes.buffer, 8, 1), 0, 0x1234);
    expect([...whole.bytes.subarray(4104, 4106)]).toEqual([0x34, 0x12]);
    whole.unmap();
    second.unmap();
  });

  test("after unmap() views are empty instead of deadly", () => {
    const mapping = mapAnonymous(4096);
    const view = new DataView(mapping.bytes.buffer);
    const late = mapping.bytes;
    mapping.unmap();
    mapping.unmap();
    expect(late[0]).toBeUndefined();
    expect(() => view.getUint8(0)).toThrow(TypeError);
    expect(mapping.bytes.length).toBe(0);
  });

  test("advice is taken: dropped pages come back zeroed", () => {
    const mapping = mapAnonymous(4096);
    mapping.bytes.fill(7);
    adviseMemory(mapping.address, mapping.size, MADV_DONTNEED);
    expect(mapping.bytes.every((byte) => byte === 0)).toBe(true);
    expect(() => adviseMemory(mapping.address, mapping.size, 9999)).toThrow("madvise(9999): EINVAL");
    mapping.unmap();
  });

  test("what cannot be fails by errno", () => {
    expect(() => mapShared(-1, 4096)).toThrow("mmap(4096 bytes at 0): EBADF");
    expect(() => createMemoryFile("test", -1)).toThrow("ftruncate(test, -1): EINVAL");
    // More than any machine's pool.
    expect(() => mapAnonymous(2 ** 46, { hugePages: true })).toThrow(/ENOMEM/);
  });
});

describe("messages", () => {
  function pair(): readonly [number, number] {
    const sockets = makeSocketPair();
    owned(...sockets);
    return sockets;
  }

  test("bytes and descriptors arrive together, and stay apart from the next", () => {
    const [left, right] = pair();
    const file = createMemoryFile("passed", 10);
    owned(file);
    expect(sendMessage(left, Buffer.from("first"), [file, file, left])).toBe(5);
    expect(sendMessage(left, Buffer.from("second"))).toBe(6);
    const buffer = Buffer.alloc(100);
    const message = receiveMessage(right, buffer);
    owned(...(message?.descriptors ?? []));
    expect(message).toMatchObject({
      bytes: 5,
      descriptors: [expect.any(Number), expect.any(Number), expect.any(Number)],
    });
    const [first = -1, second = -1] = message?.descriptors ?? [];
    expect([fstatSync(first).ino, fstatSync(second).size]).toEqual([fstatSync(file).ino, 10]);
    writeSync(first, "x");
    expect(readSync(file, Buffer.alloc(1), 0, 1, 0)).toBe(1);
    expect(receiveMessage(right, buffer)).toEqual({ bytes: 6, descriptors: [] });
    expect(receiveMessage(right, buffer)).toBeUndefined();
  });

  test("as many descriptors as the kernel passes", () => {
    const [left, right] = pair();
    sendMessage(left, Buffer.from("x"), new Array<number>(253).fill(left));
    const message = receiveMessage(right, Buffer.alloc(1));
    owned(...(message?.descriptors ?? []));
    expect(new Set(message?.descriptors).size).toBe(253);
    expect(() => sendMessage(left, Buffer.from("x"), new Array<number>(254).fill(left))).toThrow(RangeError);
  });

  test("full is undefined, the end is 0 bytes, a gone peer EPIPE", () => {
    const [left, right] = makeSocketPair();
    owned(left);
    const block = Buffer.alloc(64 * 1024);
    let sent: number | undefined;
    do sent = sendMessage(left, block);
    while (sent !== undefined);
    expect(sendMessage(right, Buffer.from("bye"))).toBe(3);
    closeDescriptor(right);
    expect(receiveMessage(left, block)).toMatchObject({ bytes: 3 });
    expect(() => sendMessage(left, block)).toThrow(`sendmsg(${left}): EPIPE`);
  });
});

describe("events", () => {
  test("signals add up, and taking takes them all", () => {
    const event = createEvent();
    owned(event);
    expect(takeEvent(event)).toBe(0n);
    signalEvent(event);
    signalEvent(event);
    expect(takeEvent(event)).toBe(2n);
    expect(takeEvent(event)).toBe(0n);
  });

  test("a watcher calls back for as long as there is something, and not after close()", async () => {
    const before = descriptorCount();
    const event = createEvent();
    let calls = 0;
    let wake = () => {};
    const watcher = watchReadable(event, () => {
      calls++;
      if (calls === 3) takeEvent(event);
      wake();
    });
    const called = () => new Promise<void>((resolve) => (wake = resolve));
    signalEvent(event);
    while (calls < 3) await called();
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls).toBe(3);
    signalEvent(event);
    watcher.close();
    watcher.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls).toBe(3);
    expect(descriptorCount()).toBeLessThanOrEqual(before);
  });

  test("a hang-up is readable", async () => {
    const [left, right] = makeSocketPair();
    const { promise, resolve } = Promise.withResolvers<void>();
    const watcher = watchReadable(left, resolve);
    closeDescriptor(right);
    await promise;
    expect(receiveMessage(left, Buffer.alloc(1))).toEqual({ bytes: 0, descriptors: [] });
    watcher.close();
  });

  test("a watcher does not take what is no descriptor", () => {
    expect(() => watchReadable(-1, () => {})).toThrow("uv_pipe_open(-1): EBADF");
  });
});
