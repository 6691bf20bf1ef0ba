/** A stand-in for listenVsock, whose clients come over socket pairs: the streams are those of the enclave. */
import type { Socket } from "node:net";
import { makeSocketPair } from "../../linux/descriptor.ts";
import { SystemError } from "../../linux/ffi.ts";
import { openStream } from "../../linux/stream.ts";
import { type listenVsock, VsockSocket } from "../../linux/vsock.ts";
import type { Vsock } from "../../runtime/vsock.ts";

/** Of a place whose vsock nobody uses. */
export const NO_VSOCK: Vsock = {
  connect: () => Promise.reject(new Error("vsock was used")),
  listen() {
    throw new Error("vsock was used");
  },
};

const EADDRINUSE = 98;
const ECONNRESET = 104;

export class Parent {
  readonly #ports = new Map<number, (socket: VsockSocket) => void>();

  readonly listen: typeof listenVsock = ({ port }, onConnection) => {
    if (this.#ports.has(port)) throw new SystemError("bind", EADDRINUSE, `vsock port ${port}`);
    this.#ports.set(port, onConnection);
    return { port, close: () => void this.#ports.delete(port), ref() {}, unref() {} };
  };

  /** A client's stream to a port, half-open allowed. Throws ECONNRESET where nothing listens. */
  connect(port: number): Socket {
    return openStream(this.connectDescriptor(port), { allowHalfOpen: true });
  }

  /** The same as a bare descriptor. */
  connectDescriptor(port: number): number {
    const onConnection = this.#ports.get(port);
    if (onConnection === undefined) throw new SystemError("connect", ECONNRESET, `vsock port ${port}`);
    const [ours, theirs] = makeSocketPair();
    onConnection(openStream(theirs, { allowHalfOpen: true }, VsockSocket));
    return ours;
  }
}

/** Everything until the stream ends, as latin1 text. */
export async function readAll(stream: Socket): Promise<string> {
  let text = "";
  for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    text += chunk.toString("latin1");
  }
  return text;
}
