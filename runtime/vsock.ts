/** AF_VSOCK as the runtime and its apps use it; the enclave's own is linux/vsock.ts. */
import type { Socket } from "node:net";
import type { ConnectOptions, VsockListener } from "../linux/vsock.ts";

export type { ConnectOptions, VsockListener };

/** Half-open is allowed. It closes by itself when the peer is gone. */
export interface VsockSocket extends Socket {
  /** The peer; 0xffffffff where it was gone before it could be asked. */
  readonly remoteCid: number;
  readonly remotePort: number;
}

export interface ListenOptions {
  readonly port: number;
  /** Default: any. */
  readonly cid?: number;
  /** Connections that wait to be accepted. Default 4096. */
  readonly backlog?: number;
  /** What accept(2) fails with; the listener goes on. */
  readonly onError?: (error: Error) => void;
}

export interface Vsock {
  /** Rejects ECONNRESET (nobody listens), ETIMEDOUT; or with the signal's reason. */
  connect(options: ConnectOptions): Promise<VsockSocket>;
  /** Throws EADDRINUSE. */
  listen(options: ListenOptions, onConnection: (socket: VsockSocket) => void): VsockListener;
}

export type Listen = Vsock["listen"];
