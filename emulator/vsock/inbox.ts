/** What the guest sent on one connection and the reader has not taken: bounded by our window, in few chunks. */
import type { Segments } from "./memory.ts";

/** Our buf_alloc: what the guest may have in flight to a connection that nobody reads, bytes. */
export const RECEIVE_WINDOW = 256 * 1024;
/** Small packets are gathered into chunks up to this size, so that a million of them cannot be a million objects. */
const CHUNK_BYTES = 64 * 1024;
/** Below it a chunk is cut from Node's shared pool. */
const POOLED_BYTES = 4096;

export class Inbox {
  readonly #chunks: Buffer[] = [];
  /** Bytes of the last chunk that are filled. */
  #filled = 0;
  #unread = 0;
  /** fwd_cnt: bytes taken, modulo 2^32, and as last told to the guest. */
  #forwarded = 0;
  #told = 0;

  /** Bytes that wait. */
  get unread(): number {
    return this.#unread;
  }

  get forwarded(): number {
    return this.#forwarded;
  }

  /** Whether half a window was taken since the guest was told: it goes on sending while the news is on its way. */
  get isUpdateDue(): boolean {
    return (this.#forwarded - this.#told) >>> 0 >= RECEIVE_WINDOW / 2;
  }

  /** A packet with fwd_cnt goes out. */
  tell(): void {
    this.#told = this.#forwarded;
  }

  /** Copy `length` bytes at `offset` of a chain. The caller keeps `unread` within the window. */
  store(chain: Segments, offset: number, length: number): void {
    let tail = this.#chunks.at(-1);
    if (tail === undefined || tail.length - this.#filled < length) {
      this.#trim();
      // As large as what waits already: the first packet gets its own size, a stalled reader's chunks double.
      const bytes = Math.max(length, Math.min(this.#unread, CHUNK_BYTES));
      tail = bytes < POOLED_BYTES ? Buffer.allocUnsafe(bytes) : Buffer.allocUnsafeSlow(bytes);
      this.#chunks.push(tail);
      this.#filled = 0;
    }
    chain.read(offset, tail, this.#filled, length);
    this.#filled += length;
    this.#unread += length;
  }

  #trim(): void {
    const last = this.#chunks.length - 1;
    const tail = this.#chunks[last];
    if (tail !== undefined && tail.length > this.#filled) this.#chunks[last] = tail.subarray(0, this.#filled);
  }

  /** The oldest chunk. */
  take(): Buffer | undefined {
    this.#trim();
    const chunk = this.#chunks.shift();
    if (chunk === undefined) return undefined;
    this.#unread -= chunk.length;
    this.#forwarded = (this.#forwarded + chunk.length) >>> 0;
    return chunk;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#unread = 0;
  }
}
