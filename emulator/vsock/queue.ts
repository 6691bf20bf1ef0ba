/**
 * The device's side of a split virtqueue: virtio 1.2, 2.7. The driver's bytes are hostile: whatever is wrong with them
 * is a QueueFault that names the queue, the descriptor and the value. Without VIRTIO_F_EVENT_IDX: measured with a Linux
 * guest under TCG it saved nothing, 32 KiB writes took the same CPU time within 5 % both ways.
 */
import { type GuestMemory, QueueFault, type Region, Segments } from "./memory.ts";

/** 2.7.5: struct virtq_desc { le64 addr; le32 len; le16 flags; le16 next }. */
const DESCRIPTOR = { address: 0, length: 8, flags: 12, next: 14 } as const;
const DESCRIPTOR_BYTES = 16;
const FLAG_NEXT = 1;
const FLAG_WRITE = 2;
const FLAG_INDIRECT = 4;

/** 2.7.6: struct virtq_avail { le16 flags; le16 idx; le16 ring[size]; le16 used_event }, as u16 indices. */
const AVAILABLE = { flags: 0, index: 1, ring: 2 } as const;
const NO_INTERRUPT = 1;
/** 2.7.8: struct virtq_used { le16 flags; le16 idx; { le32 id; le32 len }[size]; le16 avail_event }, as u16 indices. */
const USED = { flags: 0, index: 1 } as const;
const NO_NOTIFY = 1;
const USED_HEADER_BYTES = 4;

export const QUEUE_SIZE_MAX = 32_768;

export interface QueueLayout {
  readonly name: string;
  readonly size: number;
  /** Addresses of the three areas in the front-end's address space. */
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  /** The next available index to take. */
  readonly next: number;
  /** Which way the device uses the buffers. */
  readonly direction: "read" | "write";
}

/** A chain taken from the queue: its memory, and the head to give back. */
export class Chain extends Segments {
  head = 0;
}

export class SplitQueue {
  readonly name: string;
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #mask: number;
  readonly #wanted: number;
  readonly #table: Region;
  readonly #tableOffset: number;
  readonly #available: Uint16Array<ArrayBuffer>;
  /** flags and idx of the used ring; then its elements. */
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;
  readonly #indirect = new Segments();
  #indirectCopy: DataView<ArrayBuffer> | undefined;
  #next: number;
  /** The driver's index as last read. */
  #end: number;
  #usedNext: number;
  #usedPublished: number;

  /** Throws QueueFault for a layout that cannot be. */
  constructor(memory: GuestMemory, layout: QueueLayout) {
    const { name, size } = layout;
    if (size < 1 || size > QUEUE_SIZE_MAX || (size & (size - 1)) !== 0) {
      throw new QueueFault(`${name} queue: size ${size}, expected a power of 2 up to ${QUEUE_SIZE_MAX}`);
    }
    this.name = name;
    this.size = size;
    this.#memory = memory;
    this.#mask = size - 1;
    this.#wanted = layout.direction === "write" ? FLAG_WRITE : 0;
    const table = memory.locateUser(layout.descriptors, size * DESCRIPTOR_BYTES);
    this.#table = table.region;
    this.#tableOffset = table.offset;
    const available = this.#locate(layout.available, 2 * (AVAILABLE.ring + size + 1), 2);
    this.#available = new Uint16Array(available.buffer, available.offset, AVAILABLE.ring + size + 1);
    const used = this.#locate(layout.used, USED_HEADER_BYTES + size * 8 + 2, 4);
    this.#used = new Uint16Array(used.buffer, used.offset, 2);
    this.#usedElements = new Uint32Array(used.buffer, used.offset + USED_HEADER_BYTES, size * 2);
    this.#next = layout.next & 0xffff;
    this.#end = this.#next;
    // The device is the only writer of the used index, so it is where the ring was left (0 after a reset).
    this.#usedNext = Atomics.load(this.#used, USED.index);
    this.#usedPublished = this.#usedNext;
  }

  #locate(address: number, length: number, alignment: number): { buffer: ArrayBuffer; offset: number } {
    const { region, offset } = this.#memory.locateUser(address, length);
    if (offset % alignment !== 0) {
      throw new QueueFault(
        `${this.name} queue: ring at 0x${address.toString(16)}, expected a multiple of ${alignment}`,
      );
    }
    return { buffer: region.bytes.buffer, offset };
  }

  /** The next available index: what VHOST_USER_GET_VRING_BASE answers. */
  get next(): number {
    return this.#next;
  }

  /** Take the next chain; false where the driver has made none available. Throws QueueFault. */
  pop(chain: Chain): boolean {
    if (this.#next === this.#end && !this.#refresh()) return false;
    const head = this.#available[AVAILABLE.ring + (this.#next & this.#mask)] as number;
    this.#next = (this.#next + 1) & 0xffff;
    this.#walk(head, chain);
    chain.head = head;
    return true;
  }

  #refresh(): boolean {
    // Acquire: ring entries and descriptors are read after the index that covers them.
    const end = Atomics.load(this.#available, AVAILABLE.index);
    const added = (end - this.#next) & 0xffff;
    if (added > this.size) {
      throw new QueueFault(
        `${this.name} queue: available index ${end} is ${added} past ${this.#next}, size ${this.size}`,
      );
    }
    this.#end = end;
    return added > 0;
  }

  #walk(head: number, chain: Chain): void {
    chain.clear();
    let view: DataView = this.#table.view;
    let base = this.#tableOffset;
    let entries = this.size;
    let index = head;
    let indirect = false;
    // 2.7.5.3.1: a chain is never longer than the queue, so a longer one is a loop.
    for (let length = 0; ; ) {
      if (index >= entries) throw this.#fault(head, `descriptor ${index} of ${entries}`);
      const at = base + index * DESCRIPTOR_BYTES;
      const address = view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
      const bytes = view.getUint32(at + DESCRIPTOR.length, true);
      const flags = view.getUint16(at + DESCRIPTOR.flags, true);
      if (flags & FLAG_INDIRECT) {
        if (indirect || flags & FLAG_NEXT)
          throw this.#fault(head, `descriptor ${index}: flags ${flags} with INDIRECT`);
        indirect = true;
        entries = this.#entries(head, index, bytes);
        ({ view, base } = this.#openTable(head, index, address, entries));
        index = 0;
        continue;
      }
      if (++length > this.size) throw this.#fault(head, `more than ${this.size} descriptors: a loop`);
      if ((flags & FLAG_WRITE) !== this.#wanted) {
        throw this.#fault(
          head,
          `descriptor ${index}: flags ${flags}, expected device-${this.#wanted ? "writable" : "readable"}`,
        );
      }
      this.#append(head, index, chain, address, bytes);
      if (!(flags & FLAG_NEXT)) return;
      index = view.getUint16(at + DESCRIPTOR.next, true);
    }
  }

  #append(head: number, index: number, segments: Segments, address: number, bytes: number): void {
    try {
      this.#memory.append(segments, address, bytes);
    } catch (error) {
      throw error instanceof QueueFault ? this.#fault(head, `descriptor ${index}: ${error.message}`) : error;
    }
  }

  /** 2.7.5.3: an indirect table is whole descriptors, at least one. */
  #entries(head: number, index: number, bytes: number): number {
    if (bytes === 0 || bytes % DESCRIPTOR_BYTES !== 0) {
      throw this.#fault(head, `descriptor ${index}: indirect table of ${bytes} bytes`);
    }
    return Math.min(bytes / DESCRIPTOR_BYTES, QUEUE_SIZE_MAX);
  }

  #openTable(
    head: number,
    index: number,
    address: number,
    entries: number,
  ): { view: DataView; base: number } {
    const table = this.#indirect;
    table.clear();
    const bytes = entries * DESCRIPTOR_BYTES;
    this.#append(head, index, table, address, bytes);
    if (table.count === 1)
      return { view: (table.regions[0] as Region).view, base: table.offsets[0] as number };
    if (this.#indirectCopy === undefined || this.#indirectCopy.byteLength < bytes) {
      this.#indirectCopy = new DataView(new ArrayBuffer(bytes));
    }
    table.read(0, new Uint8Array(this.#indirectCopy.buffer), 0, bytes);
    return { view: this.#indirectCopy, base: 0 };
  }

  #fault(head: number, what: string): QueueFault {
    return new QueueFault(`${this.name} queue, chain ${head}: ${what}`);
  }

  /** Give a chain back with `written` bytes in it. The driver sees it after `publish()`. */
  push(chain: Chain, written: number): void {
    const at = (this.#usedNext & this.#mask) * 2;
    this.#usedElements[at] = chain.head;
    this.#usedElements[at + 1] = written;
    this.#usedNext = (this.#usedNext + 1) & 0xffff;
  }

  /** Show the driver what was pushed. Returns whether it wants an interrupt for that. */
  publish(): boolean {
    const now = this.#usedNext;
    if (now === this.#usedPublished) return false;
    // Sequentially consistent: elements before the index, and the index before the look at what the driver wants.
    Atomics.store(this.#used, USED.index, now);
    this.#usedPublished = now;
    return (Atomics.load(this.#available, AVAILABLE.flags) & NO_INTERRUPT) === 0;
  }

  /** Ask the driver not to kick: we look by ourselves. It may kick all the same. */
  disableKicks(): void {
    Atomics.store(this.#used, USED.flags, NO_NOTIFY);
  }

  /** Ask the driver to kick for the next chain. Returns true where one is there already, which it may not kick for. */
  enableKicks(): boolean {
    Atomics.store(this.#used, USED.flags, 0);
    return this.#next !== this.#end || this.#refresh();
  }
}
