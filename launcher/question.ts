/** The request that each connection of an enclave begins with (format/outbound.ts). */
import {
  decodeOutboundRequest,
  OUTBOUND_HEADER_SIZE,
  type OutboundRequest,
  outboundHostLength,
} from "../format/outbound.ts";
import { concat } from "../format/struct.ts";
import type { VsockStream } from "./device.ts";

/** An enclave sends its request at once. */
const REQUEST_TIMEOUT_MS = 10_000;

/** The enclave ended before its request was whole. */
export class StreamEnded extends Error {}

/** Exactly the request's bytes. Rejects with StreamEnded, or CloisterError E_OUTBOUND. */
export async function readRequest(stream: VsockStream): Promise<OutboundRequest> {
  const timer = setTimeout(() => stream.destroy(), REQUEST_TIMEOUT_MS);
  try {
    const header = await readBytes(stream, OUTBOUND_HEADER_SIZE);
    const length = outboundHostLength(header);
    const host = length === 0 ? new Uint8Array() : await readBytes(stream, length);
    return decodeOutboundRequest(concat([header, host]));
  } finally {
    clearTimeout(timer);
  }
}

function readBytes(stream: VsockStream, length: number): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const onEnd = () => reject(new StreamEnded());
  const onReadable = () => {
    const bytes = stream.read(length) as Uint8Array | null;
    // At its end a stream gives what is left, and that may be less.
    if (bytes !== null && bytes.length === length) resolve(bytes);
    else if (bytes !== null || stream.readableEnded) onEnd();
  };
  stream.on("readable", onReadable).on("end", onEnd).on("close", onEnd);
  onReadable();
  return promise.finally(() => stream.off("readable", onReadable).off("end", onEnd).off("close", onEnd));
}
