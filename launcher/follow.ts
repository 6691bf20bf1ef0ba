/** Reads a ring file (ring.ts) from its oldest byte on, and goes on as it grows. A slow reader costs its writer nothing. */
import { watch } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";

const CHUNK = 64 * 1024;

/**
 * The ring's bytes, in order, until `over` is aborted and all of them were read; one that is aborted already reads what
 * there is. Where the writer is faster than two halves of the ring, the bytes between are missing. `onCaughtUp`: the
 * consumer has all that there is so far.
 */
export async function* followRing(
  path: string,
  over: AbortSignal,
  onCaughtUp: () => void = () => {},
): AsyncGenerator<Buffer> {
  await using reader = new HalfReader(path);
  const wake = new Wake(dirname(path), over);
  try {
    for (;;) {
      // Asked before reading: what came before the end is read all the same.
      const isLast = over.aborted;
      wake.reset();
      for (let chunk = await reader.read(); chunk !== undefined; chunk = await reader.read()) yield chunk;
      onCaughtUp();
      if (isLast) return;
      await wake.called;
    }
  } finally {
    wake.close();
  }
}

interface Half {
  readonly file: FileHandle;
  readonly inode: number;
}

/** The two halves as one stream. */
class HalfReader implements AsyncDisposable {
  readonly #path: string;
  #current: Half | undefined;
  /** Follows the current one, which gets no more bytes. */
  #next: Half | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Undefined where there is nothing more so far. */
  async read(): Promise<Buffer | undefined> {
    for (;;) {
      const { buffer, bytesRead } =
        (await this.#current?.file.read(Buffer.allocUnsafe(CHUNK), 0, CHUNK)) ?? {};
      if (bytesRead) return buffer?.subarray(0, bytesRead);
      if (this.#next !== undefined) {
        await this.#current?.file.close();
        this.#current = this.#next;
        this.#next = undefined;
        continue;
      }
      this.#next = await this.#findNext();
      if (this.#next === undefined) return undefined;
      // Once more: the writer may have written between our last read and its change of files.
    }
  }

  async #findNext(): Promise<Half | undefined> {
    const inode = this.#current?.inode;
    // In this order: where the writer changes files between the two, the older one is never one that was read before.
    const current = await openHalf(this.#path);
    const old = await openHalf(`${this.#path}.1`);
    // A half that is not there any more is followed by the older one of those that are.
    const next = current?.inode === inode ? undefined : old?.inode === inode ? current : (old ?? current);
    for (const half of [old, current]) if (half !== next) await half?.file.close();
    return next;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#current?.file.close();
    await this.#next?.file.close();
  }
}

async function openHalf(path: string): Promise<Half | undefined> {
  try {
    const file = await open(path);
    return { file, inode: (await file.stat()).ino };
  } catch (error) {
    // Nothing was written, or it is between two names.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** A change in the directory, or the end. */
class Wake {
  readonly #watcher;
  readonly #call: () => void;
  #pending = Promise.withResolvers<void>();

  constructor(folder: string, over: AbortSignal) {
    this.#call = () => this.#pending.resolve();
    over.addEventListener("abort", this.#call, { once: true });
    this.#watcher = over.aborted ? undefined : watch(folder, this.#call);
    // The directory was removed: whoever did it says that it is over.
    this.#watcher?.on("error", this.#call);
  }

  get called(): Promise<void> {
    return this.#pending.promise;
  }

  reset(): void {
    this.#pending = Promise.withResolvers<void>();
  }

  close(): void {
    this.#watcher?.close();
  }
}
