/**
 * Node's own handles below net, dns, dgram and tls, as far as the outbound network replaces them: what libraries call is
 * public and stays as it is, and these few methods are all that touches the kernel's network. Reached through
 * `process.binding` (DEP0111, documentation-only deprecation); their shapes are those of the pinned Node.
 */
import type { Socket } from "node:net";

export interface TcpConnectRequest {
  /** Absent after an attempt that timed out (lib/net.js, internalConnectMultipleTimeout). */
  readonly oncomplete?: (
    status: number,
    handle: TcpHandle,
    request: TcpConnectRequest,
    readable: boolean,
    writable: boolean,
  ) => void;
}

export interface Address {
  address: string;
  family: string;
  port: number;
}

export interface StreamHandle {
  onread: (this: StreamHandle, bytes: unknown) => unknown;
}

export interface TcpHandle extends StreamHandle {
  readonly fd: number;
  /** The socket that this is the handle of, TLS or not (lib/net.js, "Legacy alias"). */
  readonly owner: OwnerSocket;
  open(fd: number): number;
  close(callback?: () => void): void;
  connect(request: TcpConnectRequest, address: string, port: number): number;
  connect6(request: TcpConnectRequest, address: string, port: number): number;
  setNoDelay(on: boolean): number;
  setKeepAlive(on: boolean, initialDelay: number): number;
  setTypeOfService(value: number): number;
  getsockname(into: Partial<Address>): number;
  getpeername(into: Partial<Address>): number;
}

export interface OwnerSocket extends Socket {
  /** The name that was looked up for this connection (lib/net.js, lookupAndConnect). */
  readonly _host?: string | null;
  readonly _handle: StreamHandle | null;
}

/** A request to getaddrinfo or of a resolver: `callback` of dns, `reject` of dns/promises. */
export interface NameRequest {
  oncomplete(error: number | string | null, result?: unknown, ttls?: readonly number[]): void;
  readonly callback?: (error: Error) => void;
  readonly reject?: (error: Error) => void;
}

export type Query = (this: unknown, request: NameRequest, name: string) => number;

type Send = (this: unknown, request: unknown, list: unknown, length: number, ...rest: unknown[]) => number;
type UdpConnect = (this: unknown, address: string, port: number) => number;

interface Bindings {
  readonly tcp_wrap: { readonly TCP: { readonly prototype: TcpHandle } };
  readonly udp_wrap: {
    readonly UDP: {
      readonly prototype: Record<"send" | "send6", Send> & Record<"connect" | "connect6", UdpConnect>;
    };
  };
  readonly cares_wrap: {
    getaddrinfo: (request: NameRequest, name: string, family: number, hints: number, order: number) => number;
    readonly DNS_ORDER_IPV6_FIRST: number;
    readonly ChannelWrap: { readonly prototype: Record<string, Query> };
  };
  readonly stream_wrap: { readonly streamBaseState: Int32Array; readonly kReadBytesOrError: number };
}

export function binding<K extends keyof Bindings>(name: K): Bindings[K] {
  return (process as unknown as { binding(name: K): Bindings[K] }).binding(name);
}

/** Errors as libuv numbers them (libuv include/uv/errno.h); those of system calls are negative errnos. */
export const UV = { EOF: -4095, EAI_NONAME: -3008, EAI_AGAIN: -3001 } as const;
