/**
 * The back-end's side of the vhost-user protocol: QEMU docs/interop/vhost-user.rst. Messages of the front-end set up
 * memory and rings; the rings that run are handed to the device.
 */
import { closeDescriptor } from "../../linux/descriptor.ts";
import { signalEvent, takeEvent, type Watcher, watchReadable } from "../../linux/event.ts";
import { receiveMessage, sendMessage } from "../../linux/message.ts";
import { GuestMemory, type RegionLayout } from "./memory.ts";
import { SplitQueue } from "./queue.ts";

/** "Front-end message types". */
const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
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
  SET_CONFIG: 25,
} as const;

/** "Header": request u32, flags u32, size u32 of the payload. */
const HEADER_BYTES = 12;
const FLAG_VERSION = 0x1;
const FLAG_VERSION_MASK = 0x3;
const FLAG_REPLY = 0x4;
const FLAG_NEED_REPLY = 0x8;
/** No message that we take is longer: SET_MEM_TABLE of 8 regions is 8 + 8 * 32, a config space 12 + 256. */
const PAYLOAD_MAX = 4096;

/** virtio 1.2, 6 "Reserved Feature Bits", and the bit that vhost-user took (VHOST_USER_F_PROTOCOL_FEATURES). */
const FEATURE_INDIRECT = 1n << 28n;
const FEATURE_EVENT_IDX = 1n << 29n;
const FEATURE_PROTOCOL = 1n << 30n;
const FEATURE_VERSION_1 = 1n << 32n;
/** "Protocol features": bits 3 and 9. */
const PROTOCOL_REPLY_ACK = 1n << 3n;
const PROTOCOL_CONFIG = 1n << 9n;

/** u64 payload of the SET_VRING_KICK family: ring index in bits 0 to 7, bit 8 for "no descriptor". */
const VRING_INDEX_MASK = 0xff;
const VRING_NO_DESCRIPTOR = 0x100;

export interface VhostDevice {
  /** The device's configuration space. */
  readonly config: Uint8Array;
  /** Name and direction of each queue. */
  readonly queues: readonly { readonly name: string; readonly direction: "read" | "write" }[];
  /** A ring runs. `isReset`: it ran before, and not up to here: the driver started anew. */
  onStart(index: number, queue: SplitQueue, isReset: boolean): void;
  onStop(index: number): void;
  onKick(index: number): void;
  /** The front-end is gone; `error` where it was sent away for breaking the protocol. */
  onClose(error: Error | undefined): void;
}

interface Ring {
  size: number;
  next: number;
  /** Where GET_VRING_BASE stopped it; undefined before its first run. */
  stoppedAt: number | undefined;
  addresses: { descriptors: number; available: number; used: number } | undefined;
  kick: Watcher | undefined;
  call: number;
  error: number;
  isEnabled: boolean;
  queue: SplitQueue | undefined;
}

interface Message {
  readonly request: number;
  readonly payload: DataView;
  readonly descriptors: number[];
}

export class VhostSession {
  readonly #fd: number;
  readonly #watcher: Watcher;
  readonly #device: VhostDevice;
  readonly #rings: Ring[];
  readonly #buffer = new Uint8Array(HEADER_BYTES + PAYLOAD_MAX);
  #filled = 0;
  #descriptors: number[] = [];
  #memory: GuestMemory | undefined;
  #features = 0n;
  #protocolFeatures = 0n;
  #isOpen = true;

  /** Serve the front-end at the other end of the AF_UNIX stream socket `fd`, which the session owns. */
  constructor(fd: number, device: VhostDevice) {
    this.#fd = fd;
    this.#device = device;
    this.#rings = device.queues.map(() => ({
      size: 0,
      next: 0,
      stoppedAt: undefined,
      addresses: undefined,
      kick: undefined,
      call: -1,
      error: -1,
      isEnabled: false,
      queue: undefined,
    }));
    this.#watcher = watchReadable(fd, () => this.#onReadable());
  }

  /** Interrupt the driver for a ring. */
  call(index: number): void {
    const fd = this.#rings[index]?.call ?? -1;
    if (fd >= 0) signalEvent(fd);
  }

  /** Stop every ring after a fault of the driver, and tell the front-end (SET_VRING_ERR). */
  fail(): void {
    for (const [index, ring] of this.#rings.entries()) {
      this.#stop(index);
      // Without a kick descriptor it stays stopped until the front-end sets it up anew.
      this.#releaseKick(ring);
      if (ring.error >= 0) signalEvent(ring.error);
    }
  }

  /** Close the socket, unmap the memory, free every descriptor. Idempotent. */
  close(error?: Error): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const [index, ring] of this.#rings.entries()) {
      this.#stop(index);
      ring.kick?.close();
      if (ring.call >= 0) closeDescriptor(ring.call);
      if (ring.error >= 0) closeDescriptor(ring.error);
    }
    for (const descriptor of this.#descriptors) closeDescriptor(descriptor);
    this.#memory?.unmap();
    this.#watcher.close();
    this.#device.onClose(error);
  }

  // ---- messages

  #onReadable(): void {
    try {
      while (this.#isOpen && this.#receive()) {}
    } catch (error) {
      // Whatever it is, the front-end and we do not agree any more: without it the device is over, not the process.
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Read what completes the current message, not a byte of the next: its descriptors come with its first byte. */
  #receive(): boolean {
    const wanted = this.#wanted();
    const received = receiveMessage(this.#fd, this.#buffer.subarray(this.#filled, wanted));
    if (received === undefined) return false;
    this.#descriptors.push(...received.descriptors);
    if (received.bytes === 0) {
      this.close();
      return false;
    }
    this.#filled += received.bytes;
    if (this.#filled < this.#wanted()) return true;
    this.#handleBuffer();
    return true;
  }

  #wanted(): number {
    if (this.#filled < HEADER_BYTES) return HEADER_BYTES;
    const size = new DataView(this.#buffer.buffer).getUint32(8, true);
    if (size > PAYLOAD_MAX) throw new Error(`vhost-user message of ${size} bytes, at most ${PAYLOAD_MAX}`);
    return HEADER_BYTES + size;
  }

  #handleBuffer(): void {
    const header = new DataView(this.#buffer.buffer, 0, HEADER_BYTES);
    const flags = header.getUint32(4, true);
    const message: Message = {
      request: header.getUint32(0, true),
      payload: new DataView(this.#buffer.buffer, HEADER_BYTES, header.getUint32(8, true)),
      descriptors: this.#descriptors,
    };
    this.#filled = 0;
    this.#descriptors = [];
    if ((flags & FLAG_VERSION_MASK) !== FLAG_VERSION) {
      throw new Error(`vhost-user message with flags ${flags}, expected version ${FLAG_VERSION}`);
    }
    try {
      const reply = this.#handle(message);
      if (reply !== undefined) this.#reply(message.request, reply);
      else if (flags & FLAG_NEED_REPLY && this.#protocolFeatures & PROTOCOL_REPLY_ACK) {
        this.#reply(message.request, u64(0n));
      }
    } finally {
      for (const descriptor of message.descriptors) closeDescriptor(descriptor);
    }
  }

  #reply(request: number, payload: Uint8Array): void {
    const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
    const header = new DataView(bytes.buffer);
    header.setUint32(0, request, true);
    header.setUint32(4, FLAG_VERSION | FLAG_REPLY, true);
    header.setUint32(8, payload.byteLength, true);
    bytes.set(payload, HEADER_BYTES);
    // The front-end waits for this reply, so its socket is empty.
    const sent = sendMessage(this.#fd, bytes);
    if (sent !== bytes.byteLength)
      throw new Error(`vhost-user reply of ${bytes.byteLength} bytes: the socket took ${sent}`);
  }

  /** Do what a message says. Returns the reply's payload for those that have one of their own. */
  #handle(message: Message): Uint8Array | undefined {
    const { request, payload } = message;
    switch (request) {
      case REQUEST.GET_FEATURES:
        return u64(FEATURE_VERSION_1 | FEATURE_PROTOCOL | FEATURE_EVENT_IDX | FEATURE_INDIRECT);
      case REQUEST.SET_FEATURES:
        this.#features = payload.getBigUint64(0, true);
        return undefined;
      case REQUEST.GET_PROTOCOL_FEATURES:
        return u64(PROTOCOL_REPLY_ACK | PROTOCOL_CONFIG);
      case REQUEST.SET_PROTOCOL_FEATURES:
        this.#protocolFeatures = payload.getBigUint64(0, true);
        return undefined;
      case REQUEST.GET_QUEUE_NUM:
        return u64(BigInt(this.#rings.length));
      // One session has one owner: there is nothing to keep or forget.
      case REQUEST.SET_OWNER:
      case REQUEST.RESET_OWNER:
        return undefined;
      case REQUEST.SET_MEM_TABLE:
        this.#setMemory(message);
        return undefined;
      case REQUEST.GET_CONFIG:
        return this.#config(payload);
      // guest_cid is the device's to say (virtio 1.2, 5.10.4); the driver never writes it.
      case REQUEST.SET_CONFIG:
        return undefined;
      default:
        return this.#handleRing(message);
    }
  }

  /** "Memory regions description": count u32, padding u32, then guest address, size, user address, file offset, u64 each. */
  #setMemory({ payload, descriptors }: Message): void {
    const count = payload.getUint32(0, true);
    if (count !== descriptors.length || payload.byteLength < 8 + count * 32) {
      throw new Error(
        `SET_MEM_TABLE: ${count} regions, ${descriptors.length} descriptors, ${payload.byteLength} bytes`,
      );
    }
    const layout: RegionLayout[] = [];
    for (let i = 0; i < count; i++) {
      const [guestAddress, size, userAddress, fileOffset] = [0, 8, 16, 24].map((field) =>
        Number(payload.getBigUint64(8 + i * 32 + field, true)),
      ) as [number, number, number, number];
      layout.push({ guestAddress, size, userAddress, fileOffset });
    }
    for (const index of this.#rings.keys()) this.#stop(index);
    this.#memory?.unmap();
    this.#memory = new GuestMemory(layout, descriptors);
    for (const index of this.#rings.keys()) this.#start(index);
  }

  /** "Virtio device config space": offset u32, size u32, flags u32, then the bytes. The reply repeats the head. */
  #config(payload: DataView): Uint8Array {
    const offset = payload.getUint32(0, true);
    const size = payload.getUint32(4, true);
    if (payload.byteLength !== 12 + size)
      throw new Error(`GET_CONFIG of ${size} bytes in ${payload.byteLength}`);
    const reply = new Uint8Array(12 + size);
    reply.set(new Uint8Array(payload.buffer, payload.byteOffset, 12));
    reply.set(this.#device.config.subarray(offset, offset + size), 12);
    return reply;
  }

  // ---- rings

  #handleRing(message: Message): Uint8Array | undefined {
    const { request, payload } = message;
    const name = Object.entries(REQUEST).find(([, value]) => value === request)?.[0];
    if (name === undefined) throw new Error(`vhost-user request ${request}, which we never offered`);
    const index = payload.getUint32(0, true) & VRING_INDEX_MASK;
    const ring = this.#rings[index];
    if (ring === undefined) throw new Error(`${name}: ring ${index} of ${this.#rings.length}`);
    switch (request) {
      // "Vring state description": index u32, number u32.
      case REQUEST.SET_VRING_NUM:
        ring.size = payload.getUint32(4, true);
        break;
      case REQUEST.SET_VRING_BASE:
        ring.next = payload.getUint32(4, true);
        break;
      case REQUEST.GET_VRING_BASE:
        this.#stop(index);
        this.#releaseKick(ring);
        return vringState(index, ring.next);
      case REQUEST.SET_VRING_ENABLE:
        ring.isEnabled = payload.getUint32(4, true) !== 0;
        if (!ring.isEnabled) this.#stop(index);
        break;
      case REQUEST.SET_VRING_ADDR:
        this.#setAddresses(ring, payload);
        break;
      case REQUEST.SET_VRING_KICK:
        this.#releaseKick(ring);
        this.#setKick(index, ring, takeDescriptor(message, name));
        break;
      case REQUEST.SET_VRING_CALL:
        if (ring.call >= 0) closeDescriptor(ring.call);
        ring.call = takeDescriptor(message, name);
        // What was used while there was no descriptor to tell it by would stay unseen.
        if (ring.queue !== undefined) this.call(index);
        break;
      case REQUEST.SET_VRING_ERR:
        if (ring.error >= 0) closeDescriptor(ring.error);
        ring.error = takeDescriptor(message, name);
        break;
    }
    this.#start(index);
    return undefined;
  }

  /** "Vring descriptor for rings": index u32, flags u32, then descriptor, used, available and log addresses, u64 each. */
  #setAddresses(ring: Ring, payload: DataView): void {
    ring.addresses = {
      descriptors: Number(payload.getBigUint64(8, true)),
      used: Number(payload.getBigUint64(16, true)),
      available: Number(payload.getBigUint64(24, true)),
    };
  }

  #setKick(index: number, ring: Ring, fd: number): void {
    if (fd < 0) throw new Error(`SET_VRING_KICK: ring ${index} without a descriptor; we do not poll`);
    ring.kick = watchReadable(fd, () => {
      takeEvent(fd);
      if (ring.queue !== undefined) this.#device.onKick(index);
    });
  }

  #releaseKick(ring: Ring): void {
    ring.kick?.close();
    ring.kick = undefined;
  }

  /** Run a ring once it has all it needs. "Ring states": enabled at once where protocol features were not negotiated. */
  #start(index: number): void {
    const ring = this.#rings[index] as Ring;
    const isEnabled = ring.isEnabled || (this.#features & FEATURE_PROTOCOL) === 0n;
    if (ring.queue !== undefined || ring.kick === undefined || ring.addresses === undefined || !isEnabled)
      return;
    if (this.#memory === undefined) return;
    const { name, direction } = this.#device.queues[index] as VhostDevice["queues"][number];
    ring.queue = new SplitQueue(this.#memory, {
      name,
      direction,
      size: ring.size,
      ...ring.addresses,
      next: ring.next,
      eventIndex: (this.#features & FEATURE_EVENT_IDX) !== 0n,
    });
    const isReset = ring.stoppedAt !== undefined && ring.stoppedAt !== ring.next;
    this.#device.onStart(index, ring.queue, isReset);
  }

  #stop(index: number): void {
    const ring = this.#rings[index] as Ring;
    if (ring.queue === undefined) return;
    ring.next = ring.queue.next;
    ring.stoppedAt = ring.next;
    ring.queue = undefined;
    this.#device.onStop(index);
  }
}

/** The descriptor of a SET_VRING_KICK, _CALL or _ERR message, -1 where its u64 says that there is none. */
function takeDescriptor({ payload, descriptors }: Message, name: string): number {
  const expected = payload.getUint32(0, true) & VRING_NO_DESCRIPTOR ? 0 : 1;
  if (descriptors.length !== expected) {
    throw new Error(`${name}: ${descriptors.length} descriptors, expected ${expected}`);
  }
  return descriptors.pop() ?? -1;
}

function u64(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

function vringState(index: number, number: number): Uint8Array {
  return new Uint8Array(new Uint32Array([index, number]).buffer);
}
