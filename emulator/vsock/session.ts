/**
 * The back-end's side of a vhost-user session: the front-end's messages set up memory and rings; rings that run are handed
 * to the device.
 */
import { closeDescriptor } from "../../linux/descriptor.ts";
import { signalEvent, takeEvent, type Watcher, watchReadable } from "../../linux/event.ts";
import { sendMessage } from "../../linux/message.ts";
import { GuestMemory } from "./memory.ts";
import * as protocol from "./protocol.ts";
import { REQUEST, type VhostMessage, type VringAddresses } from "./protocol.ts";
import { SplitQueue } from "./queue.ts";

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
  /** Where it was last stopped; undefined before its first run. */
  stoppedAt: number | undefined;
  addresses: VringAddresses | undefined;
  kick: Watcher | undefined;
  /** Descriptors of the front-end's eventfds, -1 for none. */
  call: number;
  error: number;
  isEnabled: boolean;
  queue: SplitQueue | undefined;
}

function newRing(): Ring {
  return {
    size: 0,
    next: 0,
    stoppedAt: undefined,
    addresses: undefined,
    kick: undefined,
    call: -1,
    error: -1,
    isEnabled: false,
    queue: undefined,
  };
}

export class VhostSession {
  readonly #fd: number;
  readonly #watcher: Watcher;
  readonly #device: VhostDevice;
  readonly #rings: readonly Ring[];
  readonly #reader = new protocol.MessageReader();
  #memory: GuestMemory | undefined;
  #features = 0n;
  #protocolFeatures = 0n;
  #isOpen = true;

  /** Serve the front-end at the other end of the AF_UNIX stream socket `fd`, which the session owns. */
  constructor(fd: number, device: VhostDevice) {
    this.#fd = fd;
    this.#device = device;
    this.#rings = device.queues.map(newRing);
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
      ring.kick?.close();
      ring.kick = undefined;
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
    for (const descriptor of this.#reader.leftovers) closeDescriptor(descriptor);
    this.#memory?.unmap();
    this.#watcher.close();
    this.#device.onClose(error);
  }

  #onReadable(): void {
    try {
      while (this.#isOpen) {
        const message = this.#reader.read(this.#fd);
        if (message === undefined) return;
        if (message === null) this.close();
        else this.#answer(message);
      }
    } catch (error) {
      // Whatever it is, the front-end and we do not agree any more: that ends the device, not the process.
      this.close(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #answer(message: VhostMessage): void {
    try {
      const reply = this.#handle(message);
      if (reply !== undefined) this.#reply(message.request, reply);
      else if (message.needsReply && this.#protocolFeatures & protocol.PROTOCOL_REPLY_ACK) {
        this.#reply(message.request, protocol.encodeU64(0n));
      }
    } finally {
      for (const descriptor of message.descriptors) closeDescriptor(descriptor);
    }
  }

  #reply(request: number, payload: Uint8Array): void {
    const bytes = protocol.encodeReply(request, payload);
    // The front-end waits for each reply before its next request, so its socket has room.
    const sent = sendMessage(this.#fd, bytes);
    if (sent !== bytes.byteLength) {
      throw new Error(`vhost-user reply of ${bytes.byteLength} bytes: the socket took ${sent}`);
    }
  }

  /** Do what a message says. Returns the reply's payload for those that have one of their own. */
  #handle(message: VhostMessage): Uint8Array | undefined {
    const { request, payload } = message;
    switch (request) {
      case REQUEST.GET_FEATURES:
        return protocol.encodeU64(
          protocol.FEATURE_VERSION_1 | protocol.FEATURE_PROTOCOL | protocol.FEATURE_INDIRECT,
        );
      case REQUEST.SET_FEATURES:
        this.#features = payload.getBigUint64(0, true);
        return undefined;
      case REQUEST.GET_PROTOCOL_FEATURES:
        return protocol.encodeU64(protocol.PROTOCOL_REPLY_ACK | protocol.PROTOCOL_CONFIG);
      case REQUEST.SET_PROTOCOL_FEATURES:
        this.#protocolFeatures = payload.getBigUint64(0, true);
        return undefined;
      case REQUEST.GET_QUEUE_NUM:
        return protocol.encodeU64(BigInt(this.#rings.length));
      // A session has one owner: there is nothing to keep or forget.
      case REQUEST.SET_OWNER:
      case REQUEST.RESET_OWNER:
        return undefined;
      case REQUEST.SET_MEM_TABLE:
        this.#setMemory(message);
        return undefined;
      case REQUEST.GET_CONFIG:
        return protocol.answerConfig(payload, this.#device.config);
      // guest_cid is the device's to say (virtio 1.2, 5.10.4); the driver never writes it.
      case REQUEST.SET_CONFIG:
        return undefined;
      default:
        return this.#handleRing(message);
    }
  }

  #setMemory(message: VhostMessage): void {
    const layout = protocol.decodeMemoryTable(message);
    for (const index of this.#rings.keys()) this.#stop(index);
    this.#memory?.unmap();
    this.#memory = undefined;
    this.#memory = new GuestMemory(layout, message.descriptors);
    for (const index of this.#rings.keys()) this.#start(index);
  }

  #handleRing(message: VhostMessage): Uint8Array | undefined {
    const { request, payload } = message;
    const index = protocol.decodeVringIndex(payload);
    const ring = this.#rings[index];
    if (ring === undefined) {
      throw new Error(`vhost-user ${protocol.nameOf(request)}: ring ${index} of ${this.#rings.length}`);
    }
    switch (request) {
      case REQUEST.SET_VRING_NUM:
        ring.size = protocol.decodeVringState(payload).number;
        break;
      case REQUEST.SET_VRING_BASE:
        ring.next = protocol.decodeVringState(payload).number;
        break;
      case REQUEST.GET_VRING_BASE:
        this.#stop(index);
        ring.kick?.close();
        ring.kick = undefined;
        return protocol.encodeVringState(index, ring.next);
      case REQUEST.SET_VRING_ENABLE:
        ring.isEnabled = protocol.decodeVringState(payload).number !== 0;
        if (!ring.isEnabled) this.#stop(index);
        break;
      case REQUEST.SET_VRING_ADDR:
        ring.addresses = protocol.decodeVringAddresses(payload);
        break;
      case REQUEST.SET_VRING_KICK:
        this.#setKick(index, ring, protocol.takeDescriptor(message));
        break;
      case REQUEST.SET_VRING_CALL:
        if (ring.call >= 0) closeDescriptor(ring.call);
        ring.call = protocol.takeDescriptor(message);
        // What was used while there was no descriptor to tell it by would stay unseen.
        if (ring.queue !== undefined) this.call(index);
        break;
      case REQUEST.SET_VRING_ERR:
        if (ring.error >= 0) closeDescriptor(ring.error);
        ring.error = protocol.takeDescriptor(message);
        break;
      default:
        throw new Error(`vhost-user ${protocol.nameOf(request)}, which goes with no feature of ours`);
    }
    this.#start(index);
    return undefined;
  }

  #setKick(index: number, ring: Ring, fd: number): void {
    if (fd < 0)
      throw new Error(`vhost-user SET_VRING_KICK: ring ${index} without a descriptor; we do not poll`);
    ring.kick?.close();
    ring.kick = watchReadable(fd, () => {
      takeEvent(fd);
      if (ring.queue !== undefined) this.#device.onKick(index);
    });
  }

  /** Run a ring once it has all it needs. "Ring states": enabled at once where protocol features were not negotiated. */
  #start(index: number): void {
    const ring = this.#rings[index] as Ring;
    const isEnabled = ring.isEnabled || (this.#features & protocol.FEATURE_PROTOCOL) === 0n;
    if (ring.queue !== undefined || ring.kick === undefined || ring.addresses === undefined || !isEnabled)
      return;
    if (this.#memory === undefined) return;
    const { name, direction } = this.#device.queues[index] as VhostDevice["queues"][number];
    const { size, next, addresses } = ring;
    ring.queue = new SplitQueue(this.#memory, { name, direction, size, next, ...addresses });
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
