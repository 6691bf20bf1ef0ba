/** A connection as a Node stream. */
import { Duplex } from "node:stream";
import type { VsockStream as LauncherStream } from "../../launcher/device.ts";
import type { SystemError } from "../../linux/ffi.ts";
import type { Callback, Connection, ConnectionOwner } from "./connection.ts";

/**
 * One vsock connection: `end()` shuts our direction down, the guest's shutdown is 'end', `destroy()` resets. Errors:
 * ECONNRESET (the guest reset, broke the protocol or went away), EPIPE (it takes no more bytes).
 */
export class VsockStream extends Duplex implements LauncherStream, ConnectionOwner {
  readonly remoteCid: number;
  readonly remotePort: number;
  /** Our end: the CID and port that the guest sees. */
  readonly localCid: number;
  readonly localPort: number;
  readonly #connection: Connection;
  /** The reader asked for bytes and got none since. */
  #wanted = false;

  constructor(connection: Connection) {
    super({ allowHalfOpen: true });
    this.#connection = connection;
    const { localCid, localPort, remoteCid, remotePort } = connection.address;
    this.remoteCid = remoteCid;
    this.remotePort = remotePort;
    this.localCid = localCid;
    this.localPort = localPort;
    connection.owner = this;
  }

  /** Long since: a stream is made of an established connection. */
  onEstablished(): void {}

  onReadable(): void {
    while (this.#wanted) {
      const chunk = this.#connection.take();
      if (chunk === undefined) return;
      this.#wanted = this.push(chunk);
      if (chunk === null) return;
    }
  }

  onClosed(error: SystemError | undefined): void {
    if (error !== undefined) this.destroy(error);
  }

  override _read(): void {
    this.#wanted = true;
    this.onReadable();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: Callback): void {
    this.#connection.send([chunk], callback);
  }

  override _writev(chunks: { chunk: Uint8Array }[], callback: Callback): void {
    this.#connection.send(
      chunks.map(({ chunk }) => chunk),
      callback,
    );
  }

  override _final(callback: Callback): void {
    this.#connection.shutdown(callback);
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#connection.reset();
    callback(error);
  }
}
