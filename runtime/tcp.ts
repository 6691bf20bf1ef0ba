/**
 * TCP connections that leave the enclave. `net`, `tls`, `http` and `fetch` end in one call, a TCP handle's connect: a
 * destination on the loopback goes to the kernel as ever, every other one to the parent's proxy, and the vsock
 * descriptor that answers becomes the handle's own. Sockets, their handles and Node's code above stay what they are.
 */
import * as net from "node:net";
import { canonicalHost, isLoopback } from "../format/egress.ts";
import { type Address, binding, type TcpConnectRequest, type TcpHandle } from "./binding.ts";
import type { Destination, Egress } from "./egress.ts";

/** What `connect` makes of its arguments, in any of their orders (lib/net.js). */
const { _normalizeArgs: normalizeArgs } = net as unknown as {
  _normalizeArgs(args: readonly unknown[]): readonly [ConnectOptions, ...unknown[]];
};

/** Connect a handle to what the list allows; `peer` is what its app asked for. The outcome is the request's. */
export type OpenConnection = (
  handle: TcpHandle,
  request: TcpConnectRequest,
  destination: Destination,
  peer: Pick<Address, "address" | "port">,
) => void;

/** From here on, in this thread. */
export function routeTcp(egress: Egress, open: OpenConnection): void {
  refuseEarly(egress);
  const { prototype } = binding("tcp_wrap").TCP;
  for (const method of ["connect", "connect6"] as const) {
    const connect = prototype[method];
    prototype[method] = function (this: TcpHandle, request, address, port) {
      const host = canonicalHost(address);
      // What is no address, or one with a zone, is the kernel's to refuse: it has no way out.
      if (host === undefined || isLoopback(host)) return connect.call(this, request, address, port);
      const destination = egress.destination(host, port, this.owner._host);
      if (destination === undefined) failConnect(this, egress.denyConnect(host, port));
      else {
        egress.countConnect();
        open(this, request, destination, { address, port });
      }
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

export function failConnect(handle: TcpHandle, error: Error): void {
  process.nextTick(() => handle.owner.destroy(error));
}
