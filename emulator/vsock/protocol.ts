/** The vhost-user protocol's bytes: QEMU docs/interop/vhost-user.rst. Little-endian on the machines that we run on. */
import { receiveMessage } from "../../linux/message.ts";
import type { RegionLayout } from "./memory.ts";

/** "Front-end message types": the ones that a back-end with our features is sent. */
export const REQUEST = {
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

/** virtio 1.2, 6 "Reserved Feature Bits", and the bit among them that vhost-user took. */
export const FEATURE_INDIRECT = 1n << 28n;
export const FEATURE_PROTOCOL = 1n << 30n;
export const FEATURE_VERSION_1 = 1n << 32n;

/** "Protocol features". */
export const PROTOCOL_REPLY_ACK = 1n << 3n;
export const PROTOCOL_CONFIG = 1n << 9n;

/** "Header": request u32, flags u32, size u32 of the payload. */
const HEADER = { request: 0, flags: 4, size: 8 } as const;
const HEADER_BYTES = 12;
const FLAG_VERSION = 0x1;
const FLAG_VERSION_MASK = 0x3;
const FLAG_REPLY = 0x4;
const FLAG_NEED_REPLY = 0x8;
/** No message that we take is longer: SET_MEM_TABLE of 8 regions has 8 + 8 * 32 bytes, a config space 12 + 256. */
const PAYLOAD_MAX = 4096;

export interface VhostMessage {
  readonly request: number;
  readonly needsReply: boolean;
  readonly payload: DataView;
  /** To take from, or to close. */
  readonly descriptors: number[];
}

/** Name of a request, for errors. */
export function nameOf(request: number): string {
  return Object.entries(REQUEST).find(([, value]) => value === request)?.[0] ?? `request ${request}`;
}

/** Puts messages together from the pieces in which a stream socket delivers them. */
export class MessageReader {
  readonly #buffer = new Uint8Array(HEADER_BYTES + PAYLOAD_MAX);
  readonly #view = new DataView(this.#buffer.buffer);
  #filled = 0;
  #descriptors: number[] = [];

  /**
   * The next message of socket `fd`; undefined: not there yet; null: the front-end hung up. Its payload is valid until the
   * next call. Throws Error for what is no message.
   */
  read(fd: number): VhostMessage | null | undefined {
    for (;;) {
      // Never a byte of the message after: its descriptors come with its first one.
      const wanted = this.#wanted();
      if (this.#filled >= HEADER_BYTES && this.#filled === wanted) return this.#message();
      const received = receiveMessage(fd, this.#buffer.subarray(this.#filled, wanted));
      if (received === undefined) return undefined;
      this.#descriptors.push(...received.descriptors);
      if (received.bytes === 0) return null;
      this.#filled += received.bytes;
    }
  }

  #wanted(): number {
    if (this.#filled < HEADER_BYTES) return HEADER_BYTES;
    const size = this.#view.getUint32(HEADER.size, true);
    if (size > PAYLOAD_MAX) throw new Error(`vhost-user message of ${size} bytes, at most ${PAYLOAD_MAX}`);
    return HEADER_BYTES + size;
  }

  #message(): VhostMessage {
    const request = this.#view.getUint32(HEADER.request, true);
    const flags = this.#view.getUint32(HEADER.flags, true);
    if ((flags & FLAG_VERSION_MASK) !== FLAG_VERSION) {
      throw new Error(`vhost-user ${nameOf(request)} with flags ${flags}, expected version ${FLAG_VERSION}`);
    }
    const payload = new DataView(this.#buffer.buffer, HEADER_BYTES, this.#filled - HEADER_BYTES);
    const descriptors = this.#descriptors;
    this.#filled = 0;
    this.#descriptors = [];
    return { request, needsReply: (flags & FLAG_NEED_REPLY) !== 0, payload, descriptors };
  }

  /** Descriptors of a message that was never completed: to close. */
  get leftovers(): readonly number[] {
    return this.#descriptors;
  }
}

export function encodeReply(request: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
  const header = new DataView(bytes.buffer);
  header.setUint32(HEADER.request, request, true);
  header.setUint32(HEADER.flags, FLAG_VERSION | FLAG_REPLY, true);
  header.setUint32(HEADER.size, payload.byteLength, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

export function encodeU64(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

/** "A vring state description": index u32, number u32. */
export function encodeVringState(index: number, number: number): Uint8Array {
  return new Uint8Array(new Uint32Array([index, number]).buffer);
}

export function decodeVringState(payload: DataView): { readonly index: number; readonly number: number } {
  return { index: payload.getUint32(0, true), number: payload.getUint32(4, true) };
}

export interface VringAddresses {
  readonly descriptors: number;
  readonly used: number;
  readonly available: number;
}

/** "A vring address description": index u32, flags u32, then descriptor, used, available and log address, u64 each. */
export function decodeVringAddresses(payload: DataView): VringAddresses {
  return {
    descriptors: Number(payload.getBigUint64(8, true)),
    used: Number(payload.getBigUint64(16, true)),
    available: Number(payload.getBigUint64(24, true)),
  };
}

const VRING_INDEX_MASK = 0xff;
const VRING_NO_DESCRIPTOR = 0x100;

/** The ring that a ring message is about: each begins with its index, and SET_VRING_KICK's kind has flags from bit 8 on. */
export function decodeVringIndex(payload: DataView): number {
  return payload.getUint32(0, true) & VRING_INDEX_MASK;
}

/** The descriptor of a SET_VRING_KICK, _CALL or _ERR message; -1 where it says that there is none. */
export function takeDescriptor({ request, payload, descriptors }: VhostMessage): number {
  const expected = payload.getUint32(0, true) & VRING_NO_DESCRIPTOR ? 0 : 1;
  if (descriptors.length !== expected) {
    throw new Error(`vhost-user ${nameOf(request)}: ${descriptors.length} descriptors, expected ${expected}`);
  }
  return descriptors.pop() ?? -1;
}

/** "Memory regions description": count u32, padding u32; guest address, size, user address, file offset, u64 each. */
const REGION = { guestAddress: 0, size: 8, userAddress: 16, fileOffset: 24 } as const;
const REGION_BYTES = 32;
const REGIONS_OFFSET = 8;

export function decodeMemoryTable({ payload, descriptors }: VhostMessage): RegionLayout[] {
  const count = payload.getUint32(0, true);
  if (count !== descriptors.length || payload.byteLength < REGIONS_OFFSET + count * REGION_BYTES) {
    throw new Error(
      `vhost-user SET_MEM_TABLE: ${count} regions with ${descriptors.length} descriptors in ${payload.byteLength} bytes`,
    );
  }
  return Array.from({ length: count }, (_, i) => {
    const field = (offset: number) => {
      return Number(payload.getBigUint64(REGIONS_OFFSET + i * REGION_BYTES + offset, true));
    };
    return {
      guestAddress: field(REGION.guestAddress),
      size: field(REGION.size),
      userAddress: field(REGION.userAddress),
      fileOffset: field(REGION.fileOffset),
    };
  });
}

/** "Virtio device config space": offset u32, size u32, flags u32, then the bytes; the reply repeats the first three. */
export function answerConfig(payload: DataView, config: Uint8Array): Uint8Array {
  const offset = payload.getUint32(0, true);
  const size = payload.getUint32(4, true);
  if (payload.byteLength !== 12 + size) {
    throw new Error(`vhost-user GET_CONFIG of ${size} bytes in ${payload.byteLength}`);
  }
  const reply = new Uint8Array(payload.byteLength);
  reply.set(new Uint8Array(payload.buffer, payload.byteOffset, 12));
  reply.set(config.subarray(offset, offset + size), 12);
  return reply;
}
