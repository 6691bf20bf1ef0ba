/**
 * Messages on a stream: u32 length, big-endian, then that many bytes. How requests and answers of the emulated NSM travel,
 * one request at a time, and the files of a development image.
 */
import type { ErrorCode } from "./errors.ts";
import { mismatch } from "./failure.ts";
import { concat, viewOf } from "./struct.ts";

/** Bytes of the length. */
export const FRAME_HEADER_SIZE = 4;

export function encodeFrame(message: Uint8Array): Uint8Array {
  const header = new Uint8Array(FRAME_HEADER_SIZE);
  viewOf(header).setUint32(0, message.length);
  return concat([header, message]);
}

/** Cuts a stream into messages of at most `max` bytes. It holds at most one unfinished message. */
export class FrameDecoder {
  readonly #max: number;
  readonly #code: ErrorCode;
  readonly #header = new Uint8Array(FRAME_HEADER_SIZE);
  /** Of the header, then of the message. */
  #filled = 0;
  #message: Uint8Array | undefined;

  constructor(max: number, code: ErrorCode = "E_NSM") {
    this.#max = max;
    this.#code = code;
  }

  /** The messages that `chunk` completes, as they are asked for. Throws `code` for one that says it is longer. */
  *push(chunk: Uint8Array): Generator<Uint8Array, void, undefined> {
    for (let rest = chunk; ; ) {
      const target: Uint8Array = this.#message ?? this.#header;
      const piece = rest.subarray(0, target.length - this.#filled);
      target.set(piece, this.#filled);
      this.#filled += piece.length;
      rest = rest.subarray(piece.length);
      if (this.#filled < target.length) return;
      this.#filled = 0;
      const message = this.#message;
      this.#message = message === undefined ? this.#begin() : undefined;
      if (message !== undefined) yield message;
    }
  }

  #begin(): Uint8Array {
    const length = viewOf(this.#header).getUint32(0);
    if (length <= this.#max) return new Uint8Array(length);
    throw mismatch(this.#code, "message", `${length} bytes`, `at most ${this.#max}`);
  }
}
