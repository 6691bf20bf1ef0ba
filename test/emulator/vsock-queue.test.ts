/** The virtqueue parser against a driver that lies: memory and rings are written by hand, layout of virtio 1.2, 2.7. */
import fc from "fast-check";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { GuestMemory, QueueFault } from "../../emulator/vsock/memory.ts";
import { Chain, SplitQueue } from "../../emulator/vsock/queue.ts";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { createMemoryFile, mapShared } from "../../linux/memory.ts";

const BYTES = 256 * 1024;
/** The second region: right behind the first for the guest, elsewhere for the front-end. */
const SPLIT = 128 * 1024;
const GUEST = 0x4_0000_0000;
const USER = 0x7f00_0000_0000;
const SIZE = 8;
const TABLE = 0x1000;
const AVAILABLE = 0x2000;
const USED = 0x3000;
const INDIRECT = 0x4000;
const DATA = 0x8000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT_FLAG = 4;

const file = createMemoryFile("queue", BYTES);
const mapping = mapShared(file, BYTES);
const bytes = Buffer.from(mapping.bytes.buffer);
const memory = new GuestMemory(
  [
    { guestAddress: GUEST, userAddress: USER, size: SPLIT, fileOffset: 0 },
    { guestAddress: GUEST + SPLIT, userAddress: USER + 0x1000_0000, size: BYTES - SPLIT, fileOffset: SPLIT },
  ],
  [file, file],
);
afterAll(() => {
  memory.unmap();
  mapping.unmap();
  closeDescriptor(file);
});

let queue: SplitQueue;
const chain = new Chain();

function newQueue(direction: "read" | "write" = "read", next = 0, size = SIZE): SplitQueue {
  return new SplitQueue(memory, {
    name: "test",
    size,
    descriptors: USER + TABLE,
    available: USER + AVAILABLE,
    used: USER + USED,
    next,
    direction,
  });
}

beforeEach(() => {
  bytes.fill(0);
  for (let i = DATA; i < BYTES; i++) bytes[i] = i * 7 + (i >> 8);
  queue = newQueue();
});

function describeBuffer(
  table: number,
  index: number,
  address: number | bigint,
  length: number,
  flags = 0,
  next = 0,
): void {
  const at = table + index * 16;
  bytes.writeBigUInt64LE(BigInt(address), at);
  bytes.writeUInt32LE(length, at + 8);
  bytes.writeUInt16LE(flags, at + 12);
  bytes.writeUInt16LE(next, at + 14);
}

function offer(...heads: number[]): void {
  let index = bytes.readUInt16LE(AVAILABLE + 2);
  for (const head of heads) {
    bytes.writeUInt16LE(head, AVAILABLE + 4 + (index % SIZE) * 2);
    index = (index + 1) & 0xffff;
  }
  bytes.writeUInt16LE(index, AVAILABLE + 2);
}

/** A chain of descriptor 0. */
function offerOne(address: number | bigint, length: number, flags = 0, next = 0): void {
  describeBuffer(TABLE, 0, address, length, flags, next);
  offer(0);
}

function content(): string {
  const copy = Buffer.alloc(chain.total);
  chain.read(0, copy, 0, chain.total);
  return copy.toString("hex");
}

describe("chains", () => {
  test("one descriptor, two, and through the next field in any order", () => {
    describeBuffer(TABLE, 5, GUEST + DATA, 10, NEXT, 2);
    describeBuffer(TABLE, 2, GUEST + DATA + 100, 5, NEXT, 7);
    describeBuffer(TABLE, 7, GUEST + DATA + 50, 1);
    offer(7, 5);
    expect(queue.pop(chain)).toBe(true);
    expect([chain.head, chain.total]).toEqual([7, 1]);
    expect(queue.pop(chain)).toBe(true);
    expect([chain.head, chain.total]).toEqual([5, 16]);
    expect(content()).toBe(
      Buffer.concat([
        bytes.subarray(DATA, DATA + 10),
        bytes.subarray(DATA + 100, DATA + 105),
        bytes.subarray(DATA + 50, DATA + 51),
      ]).toString("hex"),
    );
    expect(queue.pop(chain)).toBe(false);
  });

  test("as long as the queue", () => {
    for (let i = 0; i < SIZE; i++)
      describeBuffer(TABLE, i, GUEST + DATA + i, 1, i < SIZE - 1 ? NEXT : 0, i + 1);
    offer(0);
    expect(queue.pop(chain)).toBe(true);
    expect(chain.total).toBe(SIZE);
  });

  test("an indirect table, after direct descriptors too, and empty descriptors", () => {
    describeBuffer(TABLE, 0, GUEST + DATA, 3, NEXT, 1);
    describeBuffer(TABLE, 1, GUEST + INDIRECT, 48, INDIRECT_FLAG);
    describeBuffer(INDIRECT, 0, GUEST + DATA + 9, 2, NEXT, 2);
    describeBuffer(INDIRECT, 2, GUEST + DATA + 20, 0, NEXT, 1);
    describeBuffer(INDIRECT, 1, GUEST + DATA + 30, 4);
    offer(0);
    expect(queue.pop(chain)).toBe(true);
    expect(chain.total).toBe(9);
  });

  test("a buffer, and an indirect table, that span two regions", () => {
    const table = SPLIT - 16;
    describeBuffer(TABLE, 0, GUEST + table, 32, INDIRECT_FLAG);
    describeBuffer(table, 0, GUEST + SPLIT - 40, 24, NEXT, 1);
    describeBuffer(table, 1, GUEST + SPLIT - 5, 10);
    offer(0);
    expect(queue.pop(chain)).toBe(true);
    expect([chain.total, chain.count]).toEqual([34, 3]);
    expect(content()).toBe(
      Buffer.concat([bytes.subarray(SPLIT - 40, SPLIT - 16), bytes.subarray(SPLIT - 5, SPLIT + 5)]).toString(
        "hex",
      ),
    );
  });

  test("writing goes where reading comes from", () => {
    queue = newQueue("write");
    describeBuffer(TABLE, 0, GUEST + SPLIT - 3, 6, WRITE | NEXT, 1);
    describeBuffer(TABLE, 1, GUEST + DATA, 4, WRITE);
    offer(0);
    queue.pop(chain);
    chain.write(2, Buffer.from("abcdef"), 1, 5);
    expect(bytes.subarray(SPLIT - 1, SPLIT + 3).toString()).toBe("bcde");
    expect(bytes.subarray(DATA, DATA + 1).toString()).toBe("f");
    expect(() => chain.write(6, Buffer.alloc(9), 0, 9)).toThrow(/BUG/);
  });

  test("indices wrap at 2^16", () => {
    bytes.writeUInt16LE(0xfffe, AVAILABLE + 2);
    bytes.writeUInt16LE(0xfffe, USED + 2);
    queue = newQueue("read", 0xfffe);
    describeBuffer(TABLE, 3, GUEST + DATA, 1);
    offer(3, 3, 3, 3);
    for (let i = 0; i < 4; i++) {
      expect(queue.pop(chain)).toBe(true);
      queue.push(chain, i);
    }
    expect(queue.pop(chain)).toBe(false);
    expect(queue.publish()).toBe(true);
    expect(bytes.readUInt16LE(USED + 2)).toBe(2);
    expect(queue.next).toBe(2);
    expect([6, 7, 0, 1].map((slot) => bytes.readUInt32LE(USED + 4 + slot * 8 + 4))).toEqual([0, 1, 2, 3]);
  });

  test("arbitrary sound chains give their bytes", () => {
    const buffer = fc.record({ offset: fc.integer({ min: DATA, max: BYTES - 5000 }), length: fc.nat(5000) });
    fc.assert(
      fc.property(
        fc.array(buffer, { minLength: 1, maxLength: SIZE }),
        fc.boolean(),
        (buffers, isIndirect) => {
          const table = isIndirect ? INDIRECT : TABLE;
          for (const [i, { offset, length }] of buffers.entries()) {
            describeBuffer(table, i, GUEST + offset, length, i < buffers.length - 1 ? NEXT : 0, i + 1);
          }
          if (isIndirect) describeBuffer(TABLE, 0, GUEST + INDIRECT, buffers.length * 16, INDIRECT_FLAG);
          offer(0);
          expect(queue.pop(chain)).toBe(true);
          const expected = buffers.map(({ offset, length }) => bytes.subarray(offset, offset + length));
          expect(content()).toBe(Buffer.concat(expected).toString("hex"));
        },
      ),
    );
  });
});

describe("interrupts and kicks", () => {
  test("the driver's NO_INTERRUPT is honoured, and nothing used is nothing to tell", () => {
    describeBuffer(TABLE, 0, GUEST + DATA, 1);
    offer(0, 0);
    expect(queue.publish()).toBe(false);
    queue.pop(chain);
    queue.push(chain, 0);
    bytes.writeUInt16LE(1, AVAILABLE);
    expect(queue.publish()).toBe(false);
    expect(bytes.readUInt16LE(USED + 2)).toBe(1);
    queue.pop(chain);
    queue.push(chain, 0);
    bytes.writeUInt16LE(0, AVAILABLE);
    expect(queue.publish()).toBe(true);
  });

  test("asking for kicks tells of a chain that came before the asking", () => {
    queue.disableKicks();
    expect(bytes.readUInt16LE(USED)).toBe(1);
    describeBuffer(TABLE, 0, GUEST + DATA, 1);
    expect(queue.pop(chain)).toBe(false);
    offer(0);
    expect(queue.enableKicks()).toBe(true);
    expect(bytes.readUInt16LE(USED)).toBe(0);
    queue.pop(chain);
    expect(queue.enableKicks()).toBe(false);
  });
});

describe("faults name queue, chain, descriptor and value", () => {
  const rows: readonly { name: string; set: () => void; error: RegExp }[] = [
    { name: "head past the table", set: () => offer(SIZE), error: /test queue, chain 8: descriptor 8 of 8/ },
    {
      name: "next past the table",
      set: () => offerOne(GUEST + DATA, 1, NEXT, 0xffff),
      error: /chain 0: descriptor 65535 of 8/,
    },
    {
      name: "loop of one",
      set: () => {
        describeBuffer(TABLE, 2, GUEST + DATA, 1, NEXT, 2);
        offer(2);
      },
      error: /chain 2: more than 8 descriptors: a loop/,
    },
    {
      name: "loop of two",
      set: () => {
        describeBuffer(TABLE, 0, GUEST + DATA, 1, NEXT, 1);
        describeBuffer(TABLE, 1, GUEST + DATA, 1, NEXT, 0);
        offer(0);
      },
      error: /a loop/,
    },
    {
      name: "loop of empty descriptors in an indirect table",
      set: () => {
        describeBuffer(TABLE, 0, GUEST + INDIRECT, 16, INDIRECT_FLAG);
        describeBuffer(INDIRECT, 0, GUEST + DATA, 0, NEXT, 0);
        offer(0);
      },
      error: /a loop/,
    },
    {
      name: "a chain longer than the queue, no loop",
      set: () => {
        describeBuffer(TABLE, 0, GUEST + INDIRECT, (SIZE + 1) * 16, INDIRECT_FLAG);
        for (let i = 0; i <= SIZE; i++)
          describeBuffer(INDIRECT, i, GUEST + DATA, 1, i < SIZE ? NEXT : 0, i + 1);
        offer(0);
      },
      error: /more than 8 descriptors/,
    },
    {
      name: "address before memory",
      set: () => offerOne(GUEST - 1, 2),
      error: /descriptor 0: 2 bytes at guest address 0x3ffffffff: no memory at 0x3ffffffff/,
    },
    {
      name: "buffer past memory",
      set: () => offerOne(GUEST + BYTES - 4, 5),
      error: /5 bytes at guest address 0x40003fffc: no memory at 0x400040000/,
    },
    {
      name: "length 4 GiB - 1",
      set: () => offerOne(GUEST + DATA, 0xffff_ffff),
      error: /4294967295 bytes/,
    },
    {
      name: "address that wraps",
      set: () => offerOne(0xffff_ffff_ffff_ffffn, 2),
      error: /no memory at 0x10000000000000000/,
    },
    {
      name: "device-writable where the device reads",
      set: () => offerOne(GUEST + DATA, 1, WRITE),
      error: /descriptor 0: flags 2, expected device-readable/,
    },
    {
      name: "indirect table with a next",
      set: () => offerOne(GUEST + INDIRECT, 16, INDIRECT_FLAG | NEXT, 1),
      error: /descriptor 0: flags 5 with INDIRECT/,
    },
    {
      name: "indirect in indirect",
      set: () => {
        describeBuffer(TABLE, 0, GUEST + INDIRECT, 16, INDIRECT_FLAG);
        describeBuffer(INDIRECT, 0, GUEST + INDIRECT, 16, INDIRECT_FLAG);
        offer(0);
      },
      error: /flags 4 with INDIRECT/,
    },
    ...[0, 15, 17].map((length) => ({
      name: `indirect table of ${length} bytes`,
      set: () => offerOne(GUEST + INDIRECT, length, INDIRECT_FLAG),
      error: new RegExp(`indirect table of ${length} bytes`),
    })),
    {
      name: "indirect table outside memory",
      set: () => offerOne(0x1000, 16, INDIRECT_FLAG),
      error: /descriptor 0: 16 bytes at guest address 0x1000/,
    },
    {
      name: "indirect next past its table",
      set: () => {
        describeBuffer(TABLE, 0, GUEST + INDIRECT, 32, INDIRECT_FLAG);
        describeBuffer(INDIRECT, 0, GUEST + DATA, 1, NEXT, 2);
        offer(0);
      },
      error: /descriptor 2 of 2/,
    },
    {
      name: "available index that jumps",
      set: () => bytes.writeUInt16LE(SIZE + 1, AVAILABLE + 2),
      error: /test queue: available index 9 is 9 past 0, size 8/,
    },
    {
      name: "available index that goes back",
      set: () => bytes.writeUInt16LE(0xffff, AVAILABLE + 2),
      error: /available index 65535/,
    },
  ];
  test.each(rows)("$name", ({ set, error }) => {
    set();
    expect(() => queue.pop(chain)).toThrow(QueueFault);
    queue = newQueue();
    expect(() => queue.pop(chain)).toThrow(error);
  });

  test("a region that ends behind its file", () => {
    const region = { guestAddress: 0, userAddress: 0, size: BYTES, fileOffset: 4096 };
    expect(() => new GuestMemory([region], [file])).toThrow(
      "memory region of 262144 bytes at 4096 of 262144",
    );
  });

  test.each([0, 3, 65_536])("a queue of %i", (size) => {
    expect(() => newQueue("read", 0, size)).toThrow(/test queue: size/);
  });

  test("rings outside memory, across regions, at odd addresses", () => {
    const at = (descriptors: number, available: number, used: number) => () =>
      new SplitQueue(memory, {
        name: "test",
        size: SIZE,
        descriptors,
        available,
        used,
        next: 0,
        direction: "read",
      });
    expect(at(0, USER + AVAILABLE, USER + USED)).toThrow(
      /128 bytes at front-end address 0x0: not in one memory region/,
    );
    expect(at(USER + SPLIT - 16, USER + AVAILABLE, USER + USED)).toThrow(QueueFault);
    expect(at(USER + TABLE, USER + AVAILABLE + 1, USER + USED)).toThrow(/expected a multiple of 2/);
    expect(at(USER + TABLE, USER + AVAILABLE, USER + USED + 2)).toThrow(/expected a multiple of 4/);
  });
});

/** Pop until nothing or a fault: no other error, and only memory that is there. */
function popAll(): "accepted" | "refused" | "nothing" {
  let result: "accepted" | "refused" | "nothing" = "nothing";
  try {
    while (queue.pop(chain)) {
      chain.read(0, Buffer.alloc(chain.total), 0, chain.total);
      result = "accepted";
    }
  } catch (error) {
    expect(error).toBeInstanceOf(QueueFault);
    return "refused";
  }
  return result;
}

test("every single bit flip of a chain and of its ring is taken or refused", () => {
  const counts = { accepted: 0, refused: 0, nothing: 0 };
  const targets = [
    ...Array.from({ length: 48 * 8 }, (_, bit) => TABLE * 8 + bit),
    ...Array.from({ length: 32 * 8 }, (_, bit) => INDIRECT * 8 + bit),
    ...Array.from({ length: 8 * 8 }, (_, bit) => AVAILABLE * 8 + bit),
  ];
  for (const bit of targets) {
    bytes.fill(0, 0, DATA);
    describeBuffer(TABLE, 0, GUEST + DATA, 44, NEXT, 1);
    describeBuffer(TABLE, 1, GUEST + DATA + 100, 100, NEXT, 2);
    describeBuffer(TABLE, 2, GUEST + INDIRECT, 32, INDIRECT_FLAG);
    describeBuffer(INDIRECT, 0, GUEST + DATA + 200, 7, NEXT, 1);
    describeBuffer(INDIRECT, 1, GUEST + SPLIT - 1, 3);
    offer(0);
    bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
    queue = newQueue();
    counts[popAll()]++;
  }
  expect(counts.accepted).toBeGreaterThan(100);
  expect(counts.refused).toBeGreaterThan(100);
  expect(counts.accepted + counts.refused + counts.nothing).toBe(targets.length);
});

test("random tables end in chains or faults", () => {
  const counts = { accepted: 0, refused: 0, nothing: 0 };
  const descriptor = fc.record({
    address: fc.oneof(
      fc.integer({ min: GUEST - 100, max: GUEST + BYTES + 100 }).map(BigInt),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    ),
    length: fc.oneof(fc.nat(64), fc.constantFrom(16, 32, 64), fc.nat(0xffff_ffff)),
    flags: fc.constantFrom(0, 0, 1, 1, 2, 4, 5, 7, 0x8000),
    next: fc.oneof(fc.nat(SIZE), fc.nat(0xffff)),
  });
  const tables = fc.array(descriptor, { minLength: SIZE, maxLength: SIZE });
  fc.assert(
    fc.property(
      tables,
      tables,
      fc.array(fc.nat(SIZE), { minLength: 1, maxLength: SIZE }),
      (direct, indirect, heads) => {
        bytes.fill(0, 0, DATA);
        for (const [i, { address, length, flags, next }] of direct.entries()) {
          describeBuffer(TABLE, i, flags === 4 ? GUEST + INDIRECT : address, length, flags, next);
        }
        for (const [i, { address, length, flags, next }] of indirect.entries()) {
          describeBuffer(INDIRECT, i, address, length, flags, next);
        }
        offer(...heads);
        queue = newQueue();
        counts[popAll()]++;
      },
    ),
    { numRuns: 2000 },
  );
  expect(counts.accepted).toBeGreaterThan(10);
  expect(counts.refused).toBeGreaterThan(10);
});
