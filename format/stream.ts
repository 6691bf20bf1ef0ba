/** Streams of fetch, whose other side decides how much comes. */
import { concat } from "./struct.ts";

/**
 * All of it; undefined if that is more than `most` bytes, or `admit` does not let a piece of so many bytes in: then the
 * rest is not waited for.
 */
export async function readAtMost(
  stream: ReadableStream<Uint8Array> | null,
  most: number,
  admit: (bytes: number) => boolean = () => true,
): Promise<Uint8Array | undefined> {
  const reader = stream?.getReader();
  const pieces: Uint8Array[] = [];
  for (let size = 0; ; ) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) return concat(pieces);
    size += value.length;
    if (size > most || !admit(value.length)) {
      // May fail, or never end; the stream is of no interest any more.
      reader?.cancel().catch(() => {});
      return undefined;
    }
    pieces.push(value);
  }
}
