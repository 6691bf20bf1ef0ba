/**
 * TCP connections that leave the enclave. `net`, `tls`, `http` and `fetch` end in one call, a TCP handle's connect: a
 * destination on the loopback goes to the kernel as ever, every other one to the parent's proxy, and the vsock
 * descriptor that answers becomes the handle's own. Sockets, their handles and Node's code above stay what they are.
 */
import * as net from "node:net";
import { constants } from "node:os";
import { canonicalHost, isLoopback } from "../format/egress.ts";
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

/** What `connect` makes of its arguments, in any of their orders (lib/net.js). */
const { _normalizeArgs: normalizeArgs } = net as unknown as {
  _normalizeArgs(args: readonly unknown[]): readonly [ConnectOptions, ...unknown[]];
};
const { ECANCELED, ECONNRESET, EACCES } = constants.errno;

/** From here on, in this thread. */
export function routeTcp(egress: Egress): void {
  refuseEarly(egress);
  const { prototype } = binding("tcp_wrap").TCP;
  for (const method of ["connect", "connect6"] as const) {
    const connect = prototype[method];
    prototype[method] = function (this: TcpHandle, request, address, port) {
      const host = canonicalHost(address);
      // What is no address, or one with a zone, is the kernel's to refuse: it has no way out.
      if (host === undefined || isLoopback(host)) return connect.call(this, request, address, port);
      const destination = egress.destination(host, port, this.owner._host);
      if (destination === undefined) fail(this, egress.denyConnect(host, port));
      else void new Connection(egress, this, request).open(destination, { address, port });
      return 0;
    };
  }
}

interface ConnectOptions {
  readonly path?: unknown;
  readonly host?: unknown;
  readonly port?: unknown;
}

/** A host that the list does not have is refused before its name is asked for: then host and port are both known. */
function refuseEarly(egress: Egress): void {
  const { connect } = net.Socket.prototype;
  net.Socket.prototype.connect = function (this: net.Socket & { connecting: boolean }, ...args: unknown[]) {
    const [{ path, host = "localhost", port }] = normalize(args);
    const isOurs = path == null && typeof host === "string" && host !== "" && port !== undefined;
    if (!isOurs || isLocal(host) || egress.allows(host, Number(port)))
      return Reflect.apply(connect, this, args);
    // Writes wait for the connect, as they would.
    this.connecting = true;
    const error = egress.denyConnect(host, Number(port));
    process.nextTick(() => this.destroy(error));
    return this;
  } as typeof connect;
}

/** Node's own callers pass what is normalized already. */
function normalize(args: readonly unknown[]): readonly [ConnectOptions, ...unknown[]] {
  return Array.isArray(args[0]) ? (args[0] as [ConnectOptions]) : normalizeArgs(args);
}

function isLocal(host: string): boolean {
  const canonical = canonicalHost(host);
  return canonical !== undefined && isLoopback(canonical);
}

function fail(handle: TcpHandle, error: Error): void {
  process.nextTick(() => handle.owner.destroy(error));
}

/** One connect of one handle. */
class Connection {
  readonly #egress: Egress;
  readonly #handle: TcpHandle;
  readonly #request: TcpConnectRequest;
  readonly #aborter = new AbortController();

  constructor(egress: Egress, handle: TcpHandle, request: TcpConnectRequest) {
    this.#egress = egress;
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
      const { status, fd } = await this.#egress.outbound.connect({ type: "connect", ...destination }, signal);
      if (status === -EACCES) this.#egress.sayRefused(destination);
      this.#complete(status === 0 ? this.#adopt(fd, peer) : status);
    } catch (error) {
      if (signal.aborted) this.#complete(-ECANCELED);
      else fail(this.#handle, this.#egress.fail(`connect ${destination.host}:${destination.port}`, error));
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
