/**
 * The enclave's serial console: always drained (a guest must not block on it), the last bytes kept, any number of
 * readers, each at its own pace; one that falls behind further than the ring loses the bytes in between.
 */
import { Duplex } from "node:stream";
import { CID_HYPERVISOR } from "../format/abi.ts";
import type { VsockStream } from "../launcher/device.ts";

/** Bytes kept. */
export const CONSOLE_BYTES = 64 * 1024;

export class Console {
  readonly #ring = Buffer.alloc(CONSOLE_BYTES);
  readonly #readers = new Set<ConsoleReader>();
  /** Bytes ever written; the ring holds the last of them, byte n at n mod CONSOLE_BYTES. */
  #written = 0;
  #ended = false;

  write(data: Uint8Array): void {
    const kept = data.subarray(Math.max(0, data.length - CONSOLE_BYTES));
    const start = (this.#written + data.length - kept.length) % CONSOLE_BYTES;
    const first = kept.subarray(0, CONSOLE_BYTES - start);
    this.#ring.set(first, start);
    this.#ring.set(kept.subarray(first.length), 0);
    this.#written += data.length;
    for (const reader of this.#readers) reader.wake();
  }

  /** The enclave is gone: readers end after the last byte. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers) reader.wake();
  }

  /** What the ring holds, as text. */
  tail(): string {
    return this.#read(0).bytes.toString("utf8");
  }

  /** A stream of the ring's content and all that follows; what is written to it goes nowhere, as on hardware. */
  connect(port: number): VsockStream {
    const reader = new ConsoleReader(port, (position) => this.#read(position));
    this.#readers.add(reader);
    reader.once("close", () => this.#readers.delete(reader));
    return reader;
  }

  /** A copy of the bytes from `position` on, or from the oldest that is kept. */
  #read(position: number): ConsoleBytes {
    const from = Math.max(position, this.#written - CONSOLE_BYTES, 0);
    const start = from % CONSOLE_BYTES;
    const length = this.#written - from;
    const first = this.#ring.subarray(start, Math.min(start + length, CONSOLE_BYTES));
    const bytes = Buffer.concat([first, this.#ring.subarray(0, length - first.length)]);
    return { bytes, next: this.#written, ended: this.#ended };
  }
}

interface ConsoleBytes {
  readonly bytes: Buffer;
  /** Position after `bytes`. */
  readonly next: number;
  readonly ended: boolean;
}

class ConsoleReader extends Duplex implements VsockStream {
  readonly remoteCid = CID_HYPERVISOR;
  readonly remotePort: number;
  readonly #source: (position: number) => ConsoleBytes;
  #position = 0;
  #wanted = false;

  constructor(port: number, source: (position: number) => ConsoleBytes) {
    super({ allowHalfOpen: false });
    this.remotePort = port;
    this.#source = source;
  }

  /** There is news. */
  wake(): void {
    if (this.#wanted) this._read();
  }

  override _read(): void {
    const { bytes, next, ended } = this.#source(this.#position);
    this.#position = next;
    this.#wanted = bytes.length === 0 && !ended;
    if (bytes.length > 0) this.push(bytes);
    else if (ended) this.push(null);
  }

  override _write(_chunk: unknown, _encoding: BufferEncoding, callback: () => void): void {
    callback();
  }
}
