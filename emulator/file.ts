/** A file in memory that is written once from front to back, then read by us and by a child that inherits it. */
import { read, writeSync } from "node:fs";
import type { ByteReader } from "../format/reader.ts";
import { closeDescriptor } from "../linux/descriptor.ts";
import { createMemoryFile } from "../linux/memory.ts";

export class MemoryFile implements ByteReader {
  readonly descriptor: number;
  #size = 0;
  #open = true;
  #reads = 0;

  /** Throws SystemError (EMFILE). */
  constructor(name: string) {
    this.descriptor = createMemoryFile(name, 0);
  }

  get size(): number {
    return this.#size;
  }

  /** Throws ENOSPC or ENOMEM where the system has no memory left. */
  append(data: Uint8Array): void {
    for (let done = 0; done < data.length; ) {
      done += writeSync(this.descriptor, data, done, data.length - done, this.#size + done);
    }
    this.#size += data.length;
  }

  /** On a thread of the pool, so that the caller's loop goes on. Nothing once the file is closed. */
  read(offset: number, length: number): Promise<Uint8Array> {
    if (!this.#open) return Promise.resolve(new Uint8Array(0));
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.#reads++;
    read(this.descriptor, Buffer.allocUnsafe(length), 0, length, offset, (error, count, buffer) => {
      this.#reads--;
      this.#release();
      if (error === null) resolve(buffer.subarray(0, count));
      else reject(error);
    });
    return promise;
  }

  /** A read under way ends first: its descriptor's number must not mean another file meanwhile. Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#release();
  }

  #release(): void {
    if (!this.#open && this.#reads === 0) closeDescriptor(this.descriptor);
  }
}
