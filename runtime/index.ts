/**
 * `cloister/runtime`: what an app uses in its enclave. The packer leaves the import as it is, and init answers it with the
 * one instance that it carries. Elsewhere the import works and every call throws E_NOT_IN_ENCLAVE.
 */
import { inEnclave } from "./place.ts";
import type { ConnectOptions, ListenOptions, VsockListener, VsockSocket } from "./vsock.ts";

export type { NsmDescription } from "../format/nsm.ts";
export { type AttestOptions, attest, NsmError, type NsmErrorCode, nsm, type Register } from "./nsm.ts";
export type { FetchApp } from "./serve.ts";
export type { ConnectOptions, ListenOptions, VsockListener, VsockSocket };

/** AF_VSOCK as `net.Socket`s, half-open allowed, with `remoteCid` and `remotePort`. */
export const vsock = {
  /**
   * Connect; the parent is CID 3. Rejects with Node's codes: ECONNRESET (nobody listens), ETIMEDOUT (after
   * `timeoutMs`, default 10 s); or with the signal's reason.
   */
  async connect(options: ConnectOptions): Promise<VsockSocket> {
    return await inEnclave("vsock.connect").vsock.connect(options);
  },

  /** Listen on a port. Throws EADDRINUSE. */
  listen(options: ListenOptions, onConnection: (socket: VsockSocket) => void): VsockListener {
    return inEnclave("vsock.listen").vsock.listen(options, onConnection);
  },
} as const;

/** Is this enclave in debug mode: console readable by the parent, attestation worthless? */
export function isDebug(): boolean {
  return inEnclave("isDebug").debug;
}

/**
 * The app is ready: with `ready: "app"` in the configuration, published ports are relayed from here on (once its module is
 * evaluated). A second call, and a call where a listening port is what counts, change nothing.
 */
export function ready(): void {
  inEnclave("ready").ready?.();
}
