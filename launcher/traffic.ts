/** What was carried between TCP and an enclave: counted where Node counts already, so that bytes in flight cost nothing. */
import type { Socket } from "node:net";

/** Since the port or proxy was opened, except `open`. */
export interface Traffic {
  readonly accepted: number;
  readonly open: number;
  /** Connections that the other side, a rule or this machine did not take. */
  readonly refused: number;
  /** Bytes into the enclave. */
  readonly bytesIn: number;
  /** Bytes out of the enclave. */
  readonly bytesOut: number;
}

export class TrafficCounter {
  readonly #open = new Set<Socket>();
  #accepted = 0;
  #refused = 0;
  #bytesIn = 0;
  #bytesOut = 0;

  /** An open TCP connection, until it is closed. */
  follow(socket: Socket): void {
    this.#accepted++;
    this.#open.add(socket);
    socket.once("close", () => {
      this.#open.delete(socket);
      this.#bytesIn += socket.bytesRead;
      this.#bytesOut += socket.bytesWritten;
    });
  }

  refuse(): void {
    this.#refused++;
  }

  /** Now. Takes time in proportion to the open connections. */
  read(): Traffic {
    let bytesIn = this.#bytesIn;
    let bytesOut = this.#bytesOut;
    for (const socket of this.#open) {
      bytesIn += socket.bytesRead;
      bytesOut += socket.bytesWritten;
    }
    return { accepted: this.#accepted, open: this.#open.size, refused: this.#refused, bytesIn, bytesOut };
  }
}
