/** What one connection has to send, and what the guest has room for: virtio 1.2, 5.10.6.3 "Buffer Space Management". */
import type { Segments } from "./memory.ts";

export class Outbox {
  #chunks: readonly Uint8Array[] = [];
  #index = 0;
  #offset = 0;
  #unsent = 0;
  /** tx_cnt: bytes sent, modulo 2^32. */
  #sent = 0;
  /** The guest's buf_alloc and fwd_cnt. */
  #window = 0;
  #forwarded = 0;

  /** Bytes that wait. */
  get unsent(): number {
    return this.#unsent;
  }

  /** Bytes the guest has room for. One that claims to have taken more than it got has none. */
  get credit(): number {
    const inFlight = (this.#sent - this.#forwarded) >>> 0;
    return Math.max(0, this.#window - inFlight);
  }

  /** Take note of a packet's buf_alloc and fwd_cnt. */
  update(window: number, forwarded: number): void {
    this.#window = window;
    this.#forwarded = forwarded;
  }

  /** Send these next. Only where nothing is unsent. */
  put(chunks: readonly Uint8Array[]): void {
    this.#chunks = chunks;
    this.#index = 0;
    this.#offset = 0;
    for (const chunk of chunks) this.#unsent += chunk.byteLength;
  }

  /** Copy as many bytes as credit and `room` allow into a chain at `position`. Returns how many. */
  take(chain: Segments, position: number, room: number): number {
    const length = Math.min(room, this.#unsent, this.credit);
    for (let done = 0; done < length; ) {
      const chunk = this.#chunks[this.#index] as Uint8Array;
      const bytes = Math.min(length - done, chunk.byteLength - this.#offset);
      chain.write(position + done, chunk, this.#offset, bytes);
      done += bytes;
      this.#offset += bytes;
      if (this.#offset === chunk.byteLength) {
        this.#index++;
        this.#offset = 0;
      }
    }
    this.#sent = (this.#sent + length) >>> 0;
    this.#unsent -= length;
    if (this.#unsent === 0) this.#chunks = [];
    return length;
  }

  clear(): void {
    this.#chunks = [];
    this.#unsent = 0;
  }
}
