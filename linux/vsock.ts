/** AF_VSOCK (vsock(7), linux/vm_sockets.h) as `net.Socket`s: connect with a timeout, listen, who the peer is. */
import { closeSync, openSync } from "node:fs";
import { Socket } from "node:net";
import { constants } from "node:os";
import { CID_ANY, VSOCK_WRITE_MAX } from "../format/abi.ts";
import { closeDescriptor } from "./descriptor.ts";
import { isPeerGone } from "./exchange.ts";
import { bind, check, errno, SystemError } from "./ffi.ts";
import { becomes } from "./ready.ts";
import { descriptorOf, listenStream, openStream, type StreamListener } from "./stream.ts";

const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
/** A struct timeval; also the kernel's own limit for a non-blocking connect. */
const SO_VM_SOCKETS_CONNECT_TIMEOUT = 6;
const IOCTL_VM_SOCKETS_GET_LOCAL_CID = 0x7b9n;

/** bind(2) to it: any free port. */
export const PORT_ANY = 0xffff_ffff;
/** Connects that arrive while it is full are reset at once, so it is generous. */
const BACKLOG = 4096;
const CONNECT_TIMEOUT_MS = 10_000;

const libc = bind({
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  connect: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  bind: { arguments: ["i32", "buffer", "u32"], return: "i32" },
  getsockname: { arguments: ["i32", "buffer", "buffer"], return: "i32" },
  getpeername: { arguments: ["i32", "buffer", "buffer"], return: "i32" },
  getsockopt: { arguments: ["i32", "i32", "i32", "buffer", "buffer"], return: "i32" },
  setsockopt: { arguments: ["i32", "i32", "i32", "buffer", "u32"], return: "i32" },
  ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" },
});

export interface VsockAddress {
  readonly cid: number;
  readonly port: number;
}

/** struct sockaddr_vm (linux/vm_sockets.h), 16 bytes, host byte order. */
export const SOCKADDR_VM_BYTES = 16;

export function encodeAddress({ cid, port }: VsockAddress): Uint8Array {
  const view = new DataView(new ArrayBuffer(SOCKADDR_VM_BYTES));
  view.setUint16(0, AF_VSOCK, true); // svm_family; svm_reserved1 at 2
  view.setUint32(4, port, true); //     svm_port
  view.setUint32(8, cid, true); //      svm_cid; svm_flags at 12, svm_zero at 13
  return new Uint8Array(view.buffer);
}

export function decodeAddress(bytes: Uint8Array): VsockAddress {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SOCKADDR_VM_BYTES);
  return { port: view.getUint32(4, true), cid: view.getUint32(8, true) };
}

type WriteCallback = (error?: Error | null) => void;
interface Chunk {
  readonly chunk: Buffer | string;
  readonly encoding: BufferEncoding;
}
/** What Writable calls the encoding of a chunk that is bytes; its types leave it out. */
const BYTES = "buffer" as BufferEncoding;

/**
 * A connected vsock stream. It closes by itself when the peer is gone; while the peer only ended its own writing, the stream
 * stays half-open. Writes reach the kernel in pieces of VSOCK_WRITE_MAX at most: the parent's kernel, and the
 * hypervisor behind it, are not ours. (TLS over it writes past this class; in the enclave our kernel has the same cap.)
 */
export class VsockSocket extends Socket {
  /** The peer; CID_ANY and PORT_ANY where it was gone before it could be asked. */
  readonly remoteCid: number;
  override readonly remotePort: number;

  constructor(options: object) {
    super(options);
    const peer = peerOf(descriptorOf(this));
    this.remoteCid = peer.cid;
    this.remotePort = peer.port;
    this.once("end", () => {
      if (isPeerGone(descriptorOf(this))) this.destroy();
    });
  }

  override _write(chunk: Buffer | string, encoding: BufferEncoding, callback: WriteCallback): void {
    // No encoding of Node's takes more than 3 bytes for a UTF-16 unit.
    if (typeof chunk === "string" && chunk.length * 3 <= VSOCK_WRITE_MAX) {
      super._write(chunk, encoding, callback);
    } else {
      this.#writePieces(typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk, callback);
    }
  }

  override _writev(chunks: Chunk[], callback: WriteCallback): void {
    const bytes = chunks.map(({ chunk, encoding }) =>
      typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk,
    );
    this.#writePieces(Buffer.concat(bytes), callback);
  }

  #writePieces(bytes: Buffer, callback: WriteCallback): void {
    if (bytes.length <= VSOCK_WRITE_MAX) {
      super._write(bytes, BYTES, callback);
      return;
    }
    let synchronous = true;
    let done = false;
    super._write(bytes.subarray(0, VSOCK_WRITE_MAX), BYTES, (error) => {
      done = !error;
      if (error) callback(error);
      else if (!synchronous) this.#writePieces(bytes.subarray(VSOCK_WRITE_MAX), callback);
    });
    synchronous = false;
    // A kernel that keeps up completes every piece at once: going on here would nest as deep as there are pieces.
    if (done) setImmediate(() => this.#writePieces(bytes.subarray(VSOCK_WRITE_MAX), callback));
  }
}

function peerOf(fd: number): VsockAddress {
  const bytes = new Uint8Array(SOCKADDR_VM_BYTES);
  const length = new Uint32Array([bytes.length]);
  const isKnown = libc.getpeername(fd, bytes, length) === 0 && length[0] === SOCKADDR_VM_BYTES;
  if (isKnown) return decodeAddress(bytes);
  // ENOTCONN: reset between the handshake and here; the stream will say so.
  return { cid: CID_ANY, port: PORT_ANY };
}

export interface ConnectOptions extends VsockAddress {
  /** Default 10 s; whole milliseconds. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Connect; half-open is allowed. Rejects with SystemError: ECONNRESET (refused: nobody listens, or the backlog is
 * full), ETIMEDOUT, ENODEV (no vsock device); or with the signal's reason.
 */
export async function connectVsock(options: ConnectOptions): Promise<VsockSocket> {
  const fd = await openVsock(options);
  try {
    return openStream(fd, { allowHalfOpen: true }, VsockSocket);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** As `connectVsock`: the connected descriptor, non-blocking, which is the caller's. */
export async function openVsock(options: ConnectOptions): Promise<number> {
  const { cid, port, timeoutMs = CONNECT_TIMEOUT_MS, signal } = options;
  signal?.throwIfAborted();
  const fd = openSocket();
  try {
    setConnectTimeout(fd, timeoutMs);
    if (libc.connect(fd, encodeAddress({ cid, port }), SOCKADDR_VM_BYTES) < 0) {
      const error = new SystemError("connect", errno(), `vsock ${cid}:${port}`);
      if (error.errno !== constants.errno.EINPROGRESS) throw error;
      await becomes("writable", fd, signal);
      throwSocketError(fd, `vsock ${cid}:${port}`);
    }
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

function openSocket(): number {
  return check(libc.socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket", "AF_VSOCK");
}

function setConnectTimeout(fd: number, timeoutMs: number): void {
  const seconds = Math.floor(timeoutMs / 1000);
  const timeval = new BigInt64Array([
    BigInt(seconds),
    BigInt(Math.round((timeoutMs - seconds * 1000) * 1000)),
  ]);
  const result = libc.setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, timeval, 16);
  check(result, "setsockopt", `SO_VM_SOCKETS_CONNECT_TIMEOUT ${timeoutMs} ms`);
}

function throwSocketError(fd: number, detail: string): void {
  const error = new Int32Array(1);
  check(libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, error, new Uint32Array([4])), "getsockopt", "SO_ERROR");
  if (error[0]) throw new SystemError("connect", error[0], detail);
}

export interface VsockListener extends StreamListener {
  /** The bound port, also where PORT_ANY was asked for. */
  readonly port: number;
}

export interface ListenOptions {
  readonly port: number;
  /** Default CID_ANY. */
  readonly cid?: number;
  /** Default 4096. */
  readonly backlog?: number;
  /** What accept(2) fails with; the listener goes on. */
  readonly onError?: (error: SystemError) => void;
}

/** Listen; streams come half-open. Throws SystemError: EADDRINUSE, EAFNOSUPPORT (no vsock in this kernel). */
export function listenVsock(
  options: ListenOptions,
  onConnection: (socket: VsockSocket) => void,
): VsockListener {
  const { backlog = BACKLOG, onError } = options;
  const { fd, port } = bindSocket(options);
  const streams = { backlog, allowHalfOpen: true, ...(onError && { onError }) };
  const listener = listenStream(fd, streams, VsockSocket, onConnection);
  return {
    port,
    close: (callback) => listener.close(callback),
    ref: () => listener.ref(),
    unref: () => listener.unref(),
  };
}

/** A bound socket, non-blocking. Throws as `listenVsock`. */
export function bindSocket({ port, cid = CID_ANY }: ListenOptions): {
  readonly fd: number;
  readonly port: number;
} {
  const fd = openSocket();
  try {
    check(libc.bind(fd, encodeAddress({ cid, port }), SOCKADDR_VM_BYTES), "bind", `vsock port ${port}`);
    const bytes = new Uint8Array(SOCKADDR_VM_BYTES);
    check(libc.getsockname(fd, bytes, new Uint32Array([bytes.length])), "getsockname");
    return { fd, port: decodeAddress(bytes).port };
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** This machine's CID: what its parent connects to. Throws SystemError (ENOENT, ENODEV: no vsock device). */
export function localCid(): number {
  const device = openSync("/dev/vsock", "r");
  try {
    const cid = new Uint32Array(1);
    check(libc.ioctl(device, IOCTL_VM_SOCKETS_GET_LOCAL_CID, cid), "ioctl", "VM_SOCKETS_GET_LOCAL_CID");
    return cid[0] ?? CID_ANY;
  } finally {
    closeSync(device);
  }
}
