/**
 * A vsock port of the parent that several enclaves connect to: there is one listener for all of them, so connections are
 * told apart by the CID they come from. A connection of a CID that nobody claimed is left alone: another launcher's
 * enclave, or one whose CID its launch is about to learn. It is neither read nor answered while anyone uses the port.
 */
import { CloisterError } from "../format/errors.ts";
import type { ParentVsock, SharedListener, VsockStream } from "./device.ts";

/** Unclaimed connections kept; more are reset. */
const WAITING_MAX = 64;

type OnConnection = (stream: VsockStream) => void;

const sharedPorts = new WeakMap<ParentVsock, Map<number, SharedPort>>();

/** A share of the port. Throws E_PARENT_PORT_TAKEN. */
export function openParentPort(vsock: ParentVsock, number: number): ParentPort {
  const ports = sharedPorts.get(vsock) ?? new Map<number, SharedPort>();
  sharedPorts.set(vsock, ports);
  let shared = ports.get(number);
  if (shared === undefined) {
    shared = new SharedPort(vsock, number, () => ports.delete(number));
    ports.set(number, shared);
  }
  return shared.open();
}

export interface ParentPort extends Disposable {
  /** Connections arrive from here on. Rejects with E_PARENT_PORT_TAKEN where another program keeps the port. */
  readonly ready: Promise<void>;
  /** From here on connections from this CID are ours, those that wait too. */
  claim(cid: number, onConnection: OnConnection): void;
}

class SharedPort {
  readonly #owners = new Map<number, OnConnection>();
  readonly #waiting = new Set<VsockStream>();
  readonly #onUnused: () => void;
  readonly #ready: Promise<void>;
  /** Of this process alone, or shared with others. */
  #listener: { close(): void } | SharedListener | undefined;
  #shares = 0;

  constructor(vsock: ParentVsock, number: number, onUnused: () => void) {
    this.#onUnused = onUnused;
    const accept = (stream: VsockStream) => this.#accept(stream);
    if (vsock.share === undefined) {
      try {
        this.#listener = vsock.listen(number, accept);
      } catch (error) {
        throw takenError(number, error);
      }
      this.#ready = Promise.resolve();
    } else {
      this.#ready = this.#join(number, vsock.share(number, accept));
      // Who does not wait for it hears of it by the heartbeat that does not come.
      this.#ready.catch(() => {});
    }
  }

  async #join(number: number, joining: Promise<SharedListener>): Promise<void> {
    let listener: SharedListener;
    try {
      listener = await joining;
    } catch (error) {
      this.#onUnused();
      throw takenError(number, error);
    }
    this.#listener = listener;
    for (const cid of this.#owners.keys()) listener.claim(cid);
    if (this.#shares === 0) listener.close();
  }

  open(): ParentPort {
    this.#shares++;
    let claimed: number | undefined;
    let isOpen = true;
    return {
      ready: this.#ready,
      claim: (cid, onConnection) => {
        claimed = cid;
        this.#owners.set(cid, onConnection);
        for (const stream of [...this.#waiting].filter(({ remoteCid }) => remoteCid === cid)) {
          this.#waiting.delete(stream);
          onConnection(stream);
        }
        if (this.#listener !== undefined && "claim" in this.#listener) this.#listener.claim(cid);
      },
      [Symbol.dispose]: () => {
        if (!isOpen) return;
        isOpen = false;
        if (claimed !== undefined) this.#forget(claimed);
        if (--this.#shares === 0) this.#close();
      },
    };
  }

  #forget(cid: number): void {
    this.#owners.delete(cid);
    if (this.#listener !== undefined && "release" in this.#listener) this.#listener.release(cid);
  }

  #accept(stream: VsockStream): void {
    // Whoever gets the stream hears of its end by "close".
    stream.on("error", () => {});
    const owner = this.#owners.get(stream.remoteCid);
    if (owner !== undefined) owner(stream);
    else if (this.#waiting.size >= WAITING_MAX) stream.destroy();
    else {
      this.#waiting.add(stream);
      stream.once("close", () => this.#waiting.delete(stream));
    }
  }

  #close(): void {
    this.#onUnused();
    this.#listener?.close();
    for (const stream of this.#waiting) stream.destroy();
  }
}

function takenError(number: number, error: unknown): unknown {
  if ((error as { code?: unknown }).code !== "EADDRINUSE") return error;
  const message = `vsock port ${number} of the parent: got EADDRINUSE, expected it free`;
  return new CloisterError("E_PARENT_PORT_TAKEN", message, { cause: error });
}
