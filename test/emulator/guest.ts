/**
 * QEMU and the guest's kernel in one, without a VM: a vhost-user front-end with memory in a memfd, and the driver's side
 * of two split virtqueues in it. Everything it writes can be made wrong.
 */

import type { VsockDevice } from "../../emulator/vsock/device.ts";
import {
  emptyHeader,
  HEADER_BYTES,
  type PacketHeader,
  readHeader,
  writeHeader,
} from "../../emulator/vsock/packet.ts";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { createEvent, signalEvent, takeEvent, type Watcher, watchReadable } from "../../linux/event.ts";
import { bind, check } from "../../linux/ffi.ts";
import { createMemoryFile, type Mapping, mapShared } from "../../linux/memory.ts";
import { receiveMessage, sendMessage } from "../../linux/message.ts";

const { dup } = bind({ dup: { arguments: ["i32"], return: "i32" } });

export const GUEST_CID = 16;
export const RX = 0;
export const TX = 1;
/** Where guest memory starts in the pretended QEMU, and in the guest. */
const USER_BASE = 0x7f00_0000_0000;
export const RING_SIZE = 128;
const RX_BUFFER_BYTES = 4096;

/** Guest physical addresses. */
export const LAYOUT = {
  descriptors: [0x1_0000, 0x2_0000],
  available: [0x1_4000, 0x2_4000],
  used: [0x1_8000, 0x2_8000],
  indirect: 0x3_0000,
  rxBuffers: 0x10_0000,
  txBuffers: 0x20_0000,
} as const;
const TX_BUFFER_BYTES = 72 * 1024;
export const MEMORY_BYTES = LAYOUT.txBuffers + RING_SIZE * TX_BUFFER_BYTES;

/** vhost-user.rst, "Front-end message types". */
export const VHOST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  GET_CONFIG: 24,
} as const;

export interface Packet {
  readonly header: PacketHeader;
  readonly payload: Buffer;
}

export interface GuestOptions {
  /** Rx buffers given to the device. Default: all. */
  readonly rxBuffers?: number;
  /** Guest memory as two regions that meet at this guest address. */
  readonly splitAt?: number;
}

export class FakeGuest {
  readonly #fd: number;
  readonly #watcher: Watcher;
  readonly #file = createMemoryFile("guest", MEMORY_BYTES);
  readonly #mapping: Mapping = mapShared(this.#file, MEMORY_BYTES);
  readonly memory = this.#mapping.bytes;
  readonly view = new DataView(this.memory.buffer);
  readonly #kicks = [createEvent(), createEvent()];
  readonly #calls = [createEvent(), createEvent()];
  readonly #callWatchers: Watcher[] = [];
  readonly #options: GuestOptions;
  #replies: Buffer = Buffer.alloc(0);
  #wake: () => void = () => {};
  #usedSeen = [0, 0];
  #availableNext = [0, 0];
  isHungUp = false;
  /** Interrupts seen, by ring. */
  readonly calls = [0, 0];

  constructor(device: VsockDevice, options: GuestOptions = {}) {
    this.#options = options;
    this.#fd = check(dup(device.qemuDescriptor), "dup");
    device.closeQemuDescriptor();
    this.#watcher = watchReadable(this.#fd, () => this.#onReply());
    for (const [ring, fd] of this.#calls.entries()) {
      const watcher = watchReadable(fd, () => {
        takeEvent(fd);
        this.calls[ring] = (this.calls[ring] ?? 0) + 1;
        this.#wake();
      });
      this.#callWatchers.push(watcher);
    }
  }

  close(): void {
    this.#watcher.close();
    for (const watcher of this.#callWatchers) watcher.close();
    for (const kick of this.#kicks) closeDescriptor(kick);
    this.#mapping.unmap();
    closeDescriptor(this.#file);
  }

  // ---- vhost-user

  post(request: number, payload: Uint8Array, descriptors: readonly number[] = [], flags = 1): void {
    const bytes = new Uint8Array(12 + payload.byteLength);
    new Uint32Array(bytes.buffer, 0, 3).set([request, flags, payload.byteLength]);
    bytes.set(payload, 12);
    sendMessage(this.#fd, bytes, descriptors);
  }

  postBytes(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    sendMessage(this.#fd, bytes, descriptors);
  }

  /** Send a message and take the payload of its reply. */
  async ask(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly number[] = [],
    flags = 1,
  ): Promise<Buffer> {
    this.post(request, payload, descriptors, flags);
    await this.until(
      () => this.#replies.length >= 12 && this.#replies.length >= 12 + this.#replies.readUInt32LE(8),
    );
    const size = this.#replies.readUInt32LE(8);
    const reply = this.#replies.subarray(12, 12 + size);
    if (this.#replies.readUInt32LE(0) !== request || this.#replies.readUInt32LE(4) !== 5) {
      throw new Error(`reply ${this.#replies.subarray(0, 12).toString("hex")} to request ${request}`);
    }
    this.#replies = this.#replies.subarray(12 + size);
    return reply;
  }

  /** Whether bytes of a reply wait. */
  get hasReply(): boolean {
    return this.#replies.length > 0;
  }

  #onReply(): void {
    const buffer = Buffer.alloc(4096);
    let message: ReturnType<typeof receiveMessage>;
    try {
      message = receiveMessage(this.#fd, buffer);
    } catch {
      message = { bytes: 0, descriptors: [] };
    }
    if (message?.bytes === 0) {
      this.isHungUp = true;
      this.#watcher.close();
    } else if (message !== undefined) {
      this.#replies = Buffer.concat([this.#replies, buffer.subarray(0, message.bytes)]);
    }
    this.#wake();
  }

  /** Wait for the device to do something that makes `condition` true. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.isHungUp) throw new Error("the device hung up");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The front-end's messages from its first to the running rings, as QEMU 7.2 sends them. */
  async start(): Promise<void> {
    const features = (await this.ask(VHOST.GET_FEATURES)).readBigUInt64LE(0);
    await this.ask(VHOST.GET_PROTOCOL_FEATURES);
    this.post(VHOST.SET_PROTOCOL_FEATURES, u64((1n << 3n) | (1n << 9n)));
    this.post(VHOST.SET_OWNER, new Uint8Array(0));
    this.post(VHOST.SET_FEATURES, u64(features));
    this.setMemory();
    await this.startRings();
  }

  setMemory(): void {
    const split = this.#options.splitAt;
    const regions =
      split === undefined
        ? [[0, MEMORY_BYTES]]
        : [
            [0, split],
            [split, MEMORY_BYTES],
          ];
    const table = Buffer.alloc(8 + regions.length * 32);
    table.writeUInt32LE(regions.length, 0);
    for (const [i, [start = 0, end = 0]] of regions.entries()) {
      table.writeBigUInt64LE(BigInt(start), 8 + i * 32);
      table.writeBigUInt64LE(BigInt(end - start), 16 + i * 32);
      table.writeBigUInt64LE(BigInt(USER_BASE + start), 24 + i * 32);
      table.writeBigUInt64LE(BigInt(start), 32 + i * 32);
    }
    this.post(
      VHOST.SET_MEM_TABLE,
      table,
      regions.map(() => this.#file),
    );
  }

  async startRings(base = [0, 0]): Promise<void> {
    for (const ring of [RX, TX]) {
      this.#availableNext[ring] = base[ring] ?? 0;
      this.#usedSeen[ring] = base[ring] ?? 0;
      this.post(VHOST.SET_VRING_NUM, state(ring, RING_SIZE));
      this.post(VHOST.SET_VRING_BASE, state(ring, base[ring] ?? 0));
      this.post(VHOST.SET_VRING_ADDR, addresses(ring));
      this.post(VHOST.SET_VRING_KICK, u64(BigInt(ring)), [this.#kicks[ring] ?? -1]);
      this.postCall(ring);
      this.post(VHOST.SET_VRING_ENABLE, state(ring, 1));
    }
    for (let i = 0; i < (this.#options.rxBuffers ?? RING_SIZE); i++) this.giveRxBuffer(i);
    this.kick(RX);
    // A reply after all of these says that they were handled.
    await this.ask(VHOST.GET_QUEUE_NUM);
  }

  postCall(ring: number): void {
    this.post(VHOST.SET_VRING_CALL, u64(BigInt(ring)), [this.#calls[ring] ?? -1]);
  }

  async stopRings(): Promise<number[]> {
    const next: number[] = [];
    for (const ring of [RX, TX])
      next.push((await this.ask(VHOST.GET_VRING_BASE, state(ring, 0))).readUInt32LE(4));
    return next;
  }

  /** What the guest's reset leaves: empty rings. */
  resetRings(): void {
    this.memory.fill(0, LAYOUT.descriptors[0], LAYOUT.indirect);
  }

  // ---- rings

  kick(ring: number): void {
    signalEvent(this.#kicks[ring] ?? -1);
  }

  setDescriptor(
    table: number,
    index: number,
    address: number | bigint,
    length: number,
    flags: number,
    next: number,
  ): void {
    const at = table + index * 16;
    this.view.setBigUint64(at, BigInt(address), true);
    this.view.setUint32(at + 8, length, true);
    this.view.setUint16(at + 12, flags, true);
    this.view.setUint16(at + 14, next, true);
  }

  /** Make a chain available. */
  offer(ring: number, head: number): void {
    const available = LAYOUT.available[ring] as number;
    const next = this.#availableNext[ring] as number;
    this.view.setUint16(available + 4 + (next % RING_SIZE) * 2, head, true);
    this.#availableNext[ring] = (next + 1) & 0xffff;
    this.view.setUint16(available + 2, (next + 1) & 0xffff, true);
  }

  setAvailableIndex(ring: number, index: number): void {
    this.view.setUint16((LAYOUT.available[ring] as number) + 2, index, true);
  }

  setAvailableFlags(ring: number, flags: number): void {
    this.view.setUint16(LAYOUT.available[ring] as number, flags, true);
  }

  usedIndex(ring: number): number {
    return this.view.getUint16((LAYOUT.used[ring] as number) + 2, true);
  }

  usedFlags(ring: number): number {
    return this.view.getUint16(LAYOUT.used[ring] as number, true);
  }

  giveRxBuffer(index: number): void {
    this.setDescriptor(
      LAYOUT.descriptors[RX],
      index,
      LAYOUT.rxBuffers + index * RX_BUFFER_BYTES,
      RX_BUFFER_BYTES,
      2,
      0,
    );
    this.offer(RX, index);
  }

  #takeUsed(ring: number): { head: number; written: number } | undefined {
    const seen = this.#usedSeen[ring] as number;
    if (this.usedIndex(ring) === seen) return undefined;
    const at = (LAYOUT.used[ring] as number) + 4 + (seen % RING_SIZE) * 8;
    this.#usedSeen[ring] = (seen + 1) & 0xffff;
    return { head: this.view.getUint32(at, true), written: this.view.getUint32(at + 4, true) };
  }

  /** The next packet from the device, if it is there; `keepBuffer`: do not give the buffer back. */
  tryReceive(keepBuffer = false): Packet | undefined {
    const used = this.#takeUsed(RX);
    if (used === undefined) return undefined;
    const at = LAYOUT.rxBuffers + used.head * RX_BUFFER_BYTES;
    const header = emptyHeader();
    readHeader(this.view, at, header);
    if (used.written !== HEADER_BYTES + header.length) {
      throw new Error(`used length ${used.written} with a payload of ${header.length}`);
    }
    const payload = Buffer.from(this.memory.slice(at + HEADER_BYTES, at + used.written));
    if (!keepBuffer) {
      this.giveRxBuffer(used.head);
      if ((this.usedFlags(RX) & 1) === 0) this.kick(RX);
    }
    return { header, payload };
  }

  async receive(keepBuffer = false): Promise<Packet> {
    for (;;) {
      const packet = this.tryReceive(keepBuffer);
      if (packet !== undefined) return packet;
      await this.until(() => this.usedIndex(RX) !== this.#usedSeen[RX]);
    }
  }

  #txSlot = 0;
  /** Write a packet as one chain of `pieces` (lengths), apart from one another in memory, and make it available. */
  put(
    header: Partial<PacketHeader>,
    payload: Uint8Array = new Uint8Array(0),
    pieces: readonly number[] = [HEADER_BYTES + payload.byteLength],
  ): void {
    const bytes = Buffer.alloc(HEADER_BYTES + payload.byteLength);
    const defaults = { srcCid: GUEST_CID, dstCid: 3, length: payload.byteLength, bufferSize: 256 * 1024 };
    writeHeader(new DataView(bytes.buffer, bytes.byteOffset), 0, {
      ...emptyHeader(),
      ...defaults,
      ...header,
    });
    bytes.set(payload, HEADER_BYTES);
    const slot = this.#txSlot;
    let address = LAYOUT.txBuffers + slot * TX_BUFFER_BYTES;
    let done = 0;
    for (const [i, length] of pieces.entries()) {
      const isLast = i === pieces.length - 1;
      const [index, next] = [(slot + i) % RING_SIZE, (slot + i + 1) % RING_SIZE];
      this.setDescriptor(LAYOUT.descriptors[TX], index, address, length, isLast ? 0 : 1, next);
      this.memory.set(bytes.subarray(done, done + length), address);
      done += length;
      address += length + 64;
    }
    this.offer(TX, slot);
    this.#txSlot = (slot + pieces.length) % RING_SIZE;
  }

  /** `put`, kick where the device wants it, and wait until the device used everything. */
  async send(header: Partial<PacketHeader>, payload?: Uint8Array, pieces?: readonly number[]): Promise<void> {
    this.put(header, payload, pieces);
    if ((this.usedFlags(TX) & 1) === 0) this.kick(TX);
    await this.until(() => this.usedIndex(TX) === this.#availableNext[TX]);
  }
}

export function u64(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

export function state(index: number, number: number): Uint8Array {
  return new Uint8Array(new Uint32Array([index, number]).buffer);
}

export function addresses(ring: number): Uint8Array {
  const bytes = Buffer.alloc(40);
  bytes.writeUInt32LE(ring, 0);
  for (const [i, area] of [LAYOUT.descriptors, LAYOUT.used, LAYOUT.available].entries()) {
    bytes.writeBigUInt64LE(BigInt(USER_BASE + (area[ring] as number)), 8 + i * 8);
  }
  return bytes;
}
