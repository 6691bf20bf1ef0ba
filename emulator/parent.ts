/**
 * AF_VSOCK as the parent instance of the emulated hypervisor has it: the CIDs, one table of listening ports for all
 * enclaves of a device, connections to each enclave by its CID, consoles on the hypervisor's CID.
 */
import { CID_FIRST_ENCLAVE, CID_HYPERVISOR, CONSOLE_PORT_BASE, PORT_NSM } from "../format/abi.ts";
import type { ParentVsock, VsockStream } from "../launcher/device.ts";
import type { Console } from "./console.ts";
import type { VsockDevice } from "./vsock/device.ts";

type OnConnection = (stream: VsockStream) => void;

/** An enclave that runs, as its parent can reach it. */
export interface Guest {
  readonly cid: number;
  readonly vsock: Pick<VsockDevice, "listen" | "connect">;
  /** In debug mode only: elsewhere the hypervisor answers no console. */
  readonly console?: Console;
}

interface Attached {
  readonly guest: Guest;
  /** Its share of the parent's listeners, by port. */
  readonly ports: Map<number, { close(): void }>;
}

export class EmulatedParentVsock implements ParentVsock {
  readonly #listeners = new Map<number, OnConnection>();
  readonly #guests = new Map<number, Attached>();
  readonly #reserved = new Set<number>();
  #nextCid = CID_FIRST_ENCLAVE;

  /**
   * Take a CID for an enclave; 0 takes the next one, never the one before, as on hardware. Undefined for one in use.
   */
  reserve(wanted: number): number | undefined {
    while (this.#reserved.has(this.#nextCid)) this.#nextCid++;
    const cid = wanted === 0 ? this.#nextCid++ : wanted;
    if (this.#reserved.has(cid)) return undefined;
    this.#reserved.add(cid);
    return cid;
  }

  /** The enclave with this CID is gone. */
  release(cid: number): void {
    this.#reserved.delete(cid);
    this.#guests.delete(cid);
  }

  /** From here on the enclave's connections arrive, and it can be connected to. */
  attach(guest: Guest): void {
    const ports = new Map<number, { close(): void }>();
    for (const [port, onConnection] of this.#listeners) {
      ports.set(port, guest.vsock.listen(port, onConnection));
    }
    this.#guests.set(guest.cid, { guest, ports });
  }

  listen(port: number, onConnection: OnConnection): { close(): void } {
    // The enclaves' NSM answers there, where hardware has /dev/nsm and so a free port.
    if (this.#listeners.has(port) || port === PORT_NSM) {
      const error = new Error(`listen vsock port ${port}: EADDRINUSE`);
      throw Object.assign(error, { code: "EADDRINUSE", syscall: "listen", port });
    }
    this.#listeners.set(port, onConnection);
    for (const { guest, ports } of this.#guests.values()) {
      ports.set(port, guest.vsock.listen(port, onConnection));
    }
    return { close: () => this.#close(port, onConnection) };
  }

  #close(port: number, onConnection: OnConnection): void {
    if (this.#listeners.get(port) !== onConnection) return;
    this.#listeners.delete(port);
    for (const { ports } of this.#guests.values()) {
      ports.get(port)?.close();
      ports.delete(port);
    }
  }

  /** As on the interface; ECONNRESET at once for a CID that no enclave has. */
  async connect(cid: number, port: number, options: { timeoutMs?: number } = {}): Promise<VsockStream> {
    if (cid === CID_HYPERVISOR) return this.#connectConsole(port);
    const target = this.#guests.get(cid);
    if (target === undefined) throw reset(cid, port, "no enclave has this CID");
    return target.guest.vsock.connect(port, options);
  }

  #connectConsole(port: number): VsockStream {
    const target = this.#guests.get(port - CONSOLE_PORT_BASE)?.guest.console;
    if (target === undefined) throw reset(CID_HYPERVISOR, port, "no enclave in debug mode has this console");
    return target.connect(port);
  }
}

function reset(cid: number, port: number, reason: string): Error {
  const error = new Error(`connect vsock ${cid}:${port}: ECONNRESET, ${reason}`);
  return Object.assign(error, { code: "ECONNRESET", syscall: "connect" });
}
