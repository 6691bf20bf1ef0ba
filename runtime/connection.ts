/** A TCP handle whose connection is a vsock descriptor, which the parent's proxy connected. */
import { constants } from "node:os";
import { closeDescriptor } from "../linux/descriptor.ts";
import { isPeerGone } from "../linux/exchange.ts";
import {
  type Address,
  binding,
  type OwnerSocket,
  type TcpConnectRequest,
  type TcpHandle,
  UV,
} from "./binding.ts";
import type { Destination, Egress } from "./egress.ts";
import type { Outbound } from "./outbound.ts";
import { failConnect, type OpenConnection } from "./tcp.ts";

const { ECANCELED, ECONNRESET, EACCES } = constants.errno;

export function connectionsOver(egress: Egress, outbound: Outbound): OpenConnection {
  return (handle, request, destination, peer) =>
    void new Connection(egress, outbound, handle, request).open(destination, peer);
}

/** One connect of one handle. */
class Connection {
  readonly #egress: Egress;
  readonly #outbound: Outbound;
  readonly #handle: TcpHandle;
  readonly #request: TcpConnectRequest;
  readonly #aborter = new AbortController();

  constructor(egress: Egress, outbound: Outbound, handle: TcpHandle, request: TcpConnectRequest) {
    this.#egress = egress;
    this.#outbound = outbound;
    this.#handle = handle;
    this.#request = request;
    // Until it is connected: a socket that is destroyed, or whose attempt timed out, is closed here.
    const { close } = handle;
    handle.close = (callback) => {
      Reflect.deleteProperty(handle, "close");
      this.#aborter.abort();
      close.call(handle, callback);
    };
  }

  /** Never rejects. */
  async open(destination: Destination, peer: Pick<Address, "address" | "port">): Promise<void> {
    const { signal } = this.#aborter;
    try {
      const { status, fd } = await this.#outbound.connect({ type: "connect", ...destination }, signal);
      if (status === -EACCES) this.#egress.sayRefused(destination);
      this.#complete(status === 0 ? this.#adopt(fd, peer) : status);
    } catch (error) {
      if (signal.aborted) this.#complete(-ECANCELED);
      else
        failConnect(
          this.#handle,
          this.#egress.fail(`connect ${destination.host}:${destination.port}`, error),
        );
    }
  }

  /** A callback of its own, as libuv's: what an app's listener throws is an uncaught exception. */
  #complete(status: number): void {
    const { oncomplete } = this.#request;
    const isConnected = status === 0;
    if (!this.#aborter.signal.aborted) Reflect.deleteProperty(this.#handle, "close");
    process.nextTick(() => oncomplete?.(status, this.#handle, this.#request, isConnected, isConnected));
  }

  /** The status. */
  #adopt(fd: number, { address, port }: Pick<Address, "address" | "port">): number {
    const handle = this.#handle;
    if (this.#aborter.signal.aborted) {
      closeDescriptor(fd);
      return -ECANCELED;
    }
    // What was asked of a handle without descriptor, libuv would set on this one, and vsock has no such options.
    handle.setNoDelay(false);
    handle.setKeepAlive(false, 0);
    const status = handle.open(fd);
    if (status < 0) {
      closeDescriptor(fd);
      return status;
    }
    const none = () => 0;
    Object.assign(handle, { setNoDelay: none, setKeepAlive: none, setTypeOfService: none });
    handle.getpeername = (into) => answer(into, address, port);
    handle.getsockname = (into) => answer(into, address.includes(":") ? "::" : "0.0.0.0", 0);
    tellResets(handle);
    return 0;
  }
}

function answer(into: Partial<Address>, address: string, port: number): number {
  Object.assign(into, { address, port, family: address.includes(":") ? "IPv6" : "IPv4" });
  return 0;
}

/**
 * On vsock a reset reads as an end. One whose peer does not read any more either, and which this side has not ended,
 * is told as what it is: TCP has no other way to say so.
 */
function tellResets(handle: TcpHandle): void {
  const { owner } = handle;
  const { streamBaseState: state, kReadBytesOrError: result } = binding("stream_wrap");
  const top = owner._handle;
  if (top === null) return;
  const { onread } = top;
  top.onread = function (bytes) {
    if (state[result] === UV.EOF && isReset(handle, owner)) state[result] = -ECONNRESET;
    return onread.call(this, bytes);
  };
}

function isReset(handle: TcpHandle, owner: OwnerSocket): boolean {
  return !owner.writableEnded && handle.fd >= 0 && isPeerGone(handle.fd);
}
