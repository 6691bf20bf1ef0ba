/** Connections of the parent's proxy that are descriptors on both sides: the emulator's streams have none. */
import type { Socket } from "node:net";
import { closeDescriptor, copyDescriptor } from "../linux/descriptor.ts";
import { Relay } from "../linux/relay.ts";
import { descriptorOf } from "../linux/stream.ts";
import type { VsockStream } from "./device.ts";
import { quota, type Share } from "./quota.ts";

export class DescriptorRelay {
  /** Made for the first connection. */
  #relay: Relay | undefined;
  /** How many connections are on their way here. */
  #beingSetUp = () => 0;
  readonly #share: Share = quota.share(() => ({ beingSetUp: this.#beingSetUp(), relayed: this.size }));

  /** Connections there are. */
  get size(): number {
    return this.#relay?.size ?? 0;
  }

  get bytesIn(): number {
    return this.#relay?.bytesIn ?? 0;
  }

  get bytesOut(): number {
    return this.#relay?.bytesOut ?? 0;
  }

  /** Who sets connections up says how many there are. */
  follow(beingSetUp: () => number): void {
    this.#beingSetUp = beingSetUp;
  }

  /** Whether this process has descriptors for another connection. `onFull` is told why not, once a minute. */
  admits(onFull: (reason: string) => void): boolean {
    return this.#share.admits(onFull);
  }

  /**
   * Take over both, and send the enclave `answer` first. False, with nothing done, where one is no descriptor, or where
   * bytes of an enclave that did not wait were read already. Throws SystemError EMFILE or ENOSPC.
   */
  join(socket: Socket, stream: VsockStream, answer: Uint8Array): boolean {
    const enclave = descriptorOf(stream as unknown as Socket);
    if (enclave < 0 || stream.readableLength > 0) return false;
    const descriptors: number[] = [];
    try {
      for (const fd of [descriptorOf(socket), enclave]) descriptors.push(copyDescriptor(fd));
      const [to = -1, from = -1] = descriptors;
      this.#relay ??= new Relay();
      this.#relay.join(to, from, answer);
    } catch (error) {
      for (const fd of descriptors) closeDescriptor(fd);
      throw error;
    }
    // The relay has numbers of its own for both.
    socket.destroy();
    stream.destroy();
    return true;
  }

  close(): void {
    this.#share.close();
    this.#relay?.close();
  }
}
