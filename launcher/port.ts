/**
 * A vsock port of the parent that several enclaves connect to: there is one listener for all of them, so connections are
 * told apart by the CID they come from. A connection of a CID that nobody claimed is left alone: another launcher's
 * enclave, or one whose CID its launch is about to learn. It is neither read nor answered while anyone uses the port.
 */
import { CloisterError } from "../format/errors.ts";
import type { ParentVsock, VsockStream } from "./device.ts";

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
  /** From here on connections from this CID are ours, those that wait too. */
  claim(cid: number, onConnection: OnConnection): void;
}

class SharedPort {
  readonly #owners = new Map<number, OnConnection>();
  readonly #waiting = new Set<VsockStream>();
  readonly #listener: { close(): void };
  readonly #onUnused: () => void;
  #shares = 0;

  constructor(vsock: ParentVsock, number: number, onUnused: () => void) {
    this.#onUnused = onUnused;
    try {
      this.#listener = vsock.listen(number, (stream) => this.#accept(stream));
    } catch (error) {
      if ((error as { code?: unknown }).code !== "EADDRINUSE") throw error;
      const message = `vsock port ${number} of the parent: got EADDRINUSE, expected it free`;
      throw new CloisterError("E_PARENT_PORT_TAKEN", message, { cause: error });
    }
  }

  open(): ParentPort {
    this.#shares++;
    let claimed: number | undefined;
    let isOpen = true;
    return {
      claim: (cid, onConnection) => {
        claimed = cid;
        this.#owners.set(cid, onConnection);
        for (const stream of [...this.#waiting].filter(({ remoteCid }) => remoteCid === cid)) {
          this.#waiting.delete(stream);
          onConnection(stream);
        }
      },
      [Symbol.dispose]: () => {
        if (!isOpen) return;
        isOpen = false;
        if (claimed !== undefined) this.#owners.delete(claimed);
        if (--this.#shares === 0) this.#close();
      },
    };
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
    this.#listener.close();
    for (const stream of this.#waiting) stream.destroy();
  }
}
