/** A bare enclave's vsock streams, on either side: Unix sockets that say which CID and port they come from. */
import { connect, type Socket } from "node:net";
import { constants } from "node:os";
import { SystemError } from "../../linux/failure.ts";

const { ECONNRESET, ETIMEDOUT } = constants.errno;
const CONNECT_TIMEOUT_MS = 10_000;
/** Connects that arrive while it is full are refused, so it is as generous as the enclave's. */
export const BACKLOG = 4096;

export interface PeerAddress {
  readonly cid: number;
  readonly port: number;
}

/** Rejects as vsock does, ECONNRESET (nobody listens) or ETIMEDOUT after `timeoutMs` (10 s), or with the signal's reason. */
export async function connectSocket(
  path: string,
  { cid, port }: PeerAddress,
  timeoutMs = CONNECT_TIMEOUT_MS,
  signal?: AbortSignal,
): Promise<Socket> {
  const where = `vsock ${cid}:${port}`;
  const socket = connect({ path, allowHalfOpen: true });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(() => reject(new SystemError("connect", ETIMEDOUT, where)), timeoutMs);
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  // ENOENT, ECONNREFUSED: nobody listens, which vsock answers with a reset.
  const onError = () => reject(new SystemError("connect", ECONNRESET, where));
  socket.once("error", onError).once("connect", resolve);
  try {
    await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    socket.off("error", onError);
  }
  return identify(socket, { cid, port });
}

/** Say of a socket who its peer is. */
export function identify(socket: Socket, { cid, port }: PeerAddress): Socket {
  // remotePort is an accessor of the prototype.
  return Object.defineProperties(socket, {
    remoteCid: { value: cid, enumerable: true, configurable: true },
    remotePort: { value: port, enumerable: true, configurable: true },
  });
}
