/**
 * Any descriptor that polls (vsock, eventfd, pipe, memfd-backed console) as a libuv stream, and so a `net.Socket`.
 *
 * libuv has no AF_VSOCK: `new net.Socket({ fd })` refuses the descriptor (uv_guess_handle knows AF_INET and AF_UNIX
 * only). libuv's pipe handle takes any descriptor unseen; Node reaches it through `process.binding` (DEP0111,
 * documentation-only deprecation, no warning).
 */
import { Socket } from "node:net";
import type { Writable } from "node:stream";
import { SystemError } from "./ffi.ts";

interface PipeHandle {
  readonly fd: number;
  open(fd: number): number;
  listen(backlog: number): number;
  setBlocking(on: boolean): number;
  close(callback?: () => void): void;
  ref(): void;
  unref(): void;
  onconnection: ((status: number, client: PipeHandle | undefined) => void) | null;
}

interface PipeBinding {
  readonly Pipe: new (type: number) => PipeHandle;
  readonly constants: { readonly SOCKET: number; readonly SERVER: number };
}

const { Pipe, constants } = (process as unknown as { binding(name: "pipe_wrap"): PipeBinding }).binding(
  "pipe_wrap",
);

export interface StreamOptions {
  /** Default true. */
  readonly readable?: boolean;
  /** Default true. */
  readonly writable?: boolean;
  /** Keep the writing side open after the peer's end. Default false, as in net. */
  readonly allowHalfOpen?: boolean;
}

/** A `net.Socket` or a subclass that passes its options on: the constructor takes libuv's handle. */
export type SocketClass<T extends Socket> = new (options: object) => T;

/**
 * A descriptor as a `net.Socket`, which owns it from here on and makes it non-blocking. `Class` is the kind of socket
 * to make. Throws SystemError, with the descriptor still the caller's.
 */
export function openStream(fd: number, options?: StreamOptions): Socket;
export function openStream<T extends Socket>(fd: number, options: StreamOptions, Class: SocketClass<T>): T;
export function openStream(
  fd: number,
  options: StreamOptions = {},
  Class: SocketClass<Socket> = Socket as SocketClass<Socket>,
): Socket {
  const handle = openHandle(constants.SOCKET, fd);
  return new Class({ ...options, handle });
}

/** The descriptor under a stream of this module, or -1 after it closed. */
export function descriptorOf(socket: Socket): number {
  return (socket as unknown as { _handle: PipeHandle | null })._handle?.fd ?? -1;
}

/** Make a stream's writes wait for a full pipe instead of queueing in memory. */
export function makeBlocking(socket: Writable): void {
  (socket as unknown as { _handle?: PipeHandle })._handle?.setBlocking(true);
}

export interface StreamListener {
  close(callback?: () => void): void;
  ref(): void;
  unref(): void;
}

export interface ListenOptions extends StreamOptions {
  readonly backlog: number;
  /** What accept(2) fails with (EMFILE): the listener goes on. */
  readonly onError?: (error: SystemError) => void;
}

/**
 * Listen on a bound socket of any family; owns the descriptor from here on. Throws SystemError, with the descriptor
 * closed. (`server.listen({ fd })` would guess the family again and refuse AF_VSOCK with EINVAL.)
 */
export function listenStream<T extends Socket>(
  fd: number,
  { backlog, onError, ...options }: ListenOptions,
  Class: SocketClass<T>,
  onConnection: (socket: T) => void,
): StreamListener {
  const handle = openHandle(constants.SERVER, fd);
  handle.onconnection = (status, client) => {
    if (status < 0 || client === undefined) onError?.(new SystemError("accept4", -status));
    else onConnection(new Class({ ...options, handle: client }));
  };
  const status = handle.listen(backlog);
  if (status < 0) {
    handle.close();
    throw new SystemError("listen", -status);
  }
  return handle;
}

function openHandle(type: number, fd: number): PipeHandle {
  const handle = new Pipe(type);
  const status = handle.open(fd);
  if (status < 0) {
    handle.close();
    throw new SystemError("uv_pipe_open", -status, String(fd));
  }
  return handle;
}
