/** What a bare enclave asks its parent's proxy: format/outbound.ts, as the enclave does, over a stream. */
import type { Readable } from "node:stream";
import { CID_PARENT, PORT_EGRESS } from "../../../format/abi.ts";
import {
  decodeLookupAnswer,
  decodeResolveAnswer,
  decodeStatus,
  encodeOutboundRequest,
  LOOKUP_ANSWER_SIZE,
  type LookupAnswer,
  type OutboundRequest,
  RESOLVE_LENGTH_SIZE,
  type ResolveAnswer,
  resolveAnswerLength,
  STATUS_SIZE,
} from "../../../format/outbound.ts";
import type { Questions } from "../../../runtime/egress.ts";
import type { Vsock, VsockSocket } from "../../../runtime/vsock.ts";

/** As long as the enclave waits. */
const LOOKUP_TIMEOUT_MS = 20_000;

type Request<T extends OutboundRequest["type"]> = Extract<OutboundRequest, { type: T }>;

/** A status below 0 is an error as libuv numbers it; at 0 the stream is the connection. */
export interface Connected {
  readonly status: number;
  readonly stream: VsockSocket;
}

export class StreamOutbound implements Questions {
  readonly #vsock: Vsock;

  constructor(vsock: Vsock) {
    this.#vsock = vsock;
  }

  async connect(request: Request<"connect">, signal: AbortSignal): Promise<Connected> {
    const stream = await this.#ask(request, signal);
    try {
      const status = decodeStatus(await readBytes(stream, STATUS_SIZE, signal));
      if (status < 0) stream.destroy();
      return { status, stream };
    } catch (error) {
      stream.destroy();
      throw error;
    }
  }

  async lookup(host: string): Promise<LookupAnswer> {
    const signal = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
    const stream = await this.#ask({ type: "lookup", host }, signal);
    try {
      return decodeLookupAnswer(await readBytes(stream, LOOKUP_ANSWER_SIZE, signal));
    } finally {
      stream.destroy();
    }
  }

  async resolve(request: Request<"resolve">): Promise<ResolveAnswer> {
    const signal = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
    const stream = await this.#ask(request, signal);
    try {
      const length = resolveAnswerLength(await readBytes(stream, RESOLVE_LENGTH_SIZE, signal));
      return decodeResolveAnswer(await readBytes(stream, length, signal));
    } finally {
      stream.destroy();
    }
  }

  async #ask(request: OutboundRequest, signal: AbortSignal): Promise<VsockSocket> {
    const stream = await this.#vsock.connect({ cid: CID_PARENT, port: PORT_EGRESS, signal });
    // Whoever reads it hears of its end.
    stream.on("error", () => {});
    stream.write(encodeOutboundRequest(request));
    return stream;
  }
}

/** So many bytes, and none that follow. Rejects with ECONNRESET where it ends before, or with the signal's reason. */
async function readBytes(stream: Readable, length: number, signal: AbortSignal): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const onEnd = () => reject(Object.assign(new Error("the proxy ended"), { code: "ECONNRESET" }));
  const onAbort = () => reject(signal.reason);
  const onReadable = () => {
    const bytes = stream.read(length) as Uint8Array | null;
    if (bytes?.length === length) resolve(bytes);
    else if (bytes !== null || stream.readableEnded) onEnd();
  };
  stream.on("readable", onReadable).on("end", onEnd).on("close", onEnd);
  signal.addEventListener("abort", onAbort, { once: true });
  onReadable();
  try {
    return await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    stream.off("readable", onReadable).off("end", onEnd).off("close", onEnd);
  }
}
