/**
 * Packets between the rings and the connections: who may send next, who has news for an owner, and how much is done before
 * the rest of the process gets its turn.
 */
import type { Connection } from "./connection.ts";
import { QueueFault, type Region } from "./memory.ts";
import * as packet from "./packet.ts";
import { Chain, type SplitQueue } from "./queue.ts";
import { Resets } from "./table.ts";

/** virtio 1.2, 5.10.2: rx is what the driver receives. QEMU keeps the event queue to itself. */
export const RX = 0;
export const TX = 1;

export interface TrafficHandler {
  /** A packet of the guest. Its payload is in `chain` behind the header, as far as `chain` reaches. */
  onPacket(header: Readonly<packet.PacketHeader>, chain: Chain): void;
  /** Interrupt the driver. */
  call(index: number): void;
  /** The driver broke a ring. */
  onFault(fault: QueueFault): void;
}

export class Traffic {
  readonly #handler: TrafficHandler;
  /** RSTs for addresses that have no connection. */
  readonly resets = new Resets();
  #rx: SplitQueue | undefined;
  #tx: SplitQueue | undefined;
  /** Connections with something to send, in turn; those with news for their owners. */
  readonly #ready: Connection[] = [];
  readonly #news: Connection[] = [];
  /** A ring is being worked on: no owner may be called, or it could come back here. */
  #isBusy = false;
  #isResumed = false;
  readonly #chain = new Chain();
  readonly #header = packet.emptyHeader();
  readonly #scratch = new Uint8Array(packet.HEADER_BYTES);
  readonly #scratchView = new DataView(this.#scratch.buffer);

  constructor(handler: TrafficHandler) {
    this.#handler = handler;
  }

  start(index: number, queue: SplitQueue): void {
    if (index === RX) this.#rx = queue;
    else this.#tx = queue;
    queue.disableKicks();
    this.resumeSoon();
  }

  stop(index: number): void {
    if (index === RX) this.#rx = undefined;
    else this.#tx = undefined;
  }

  /** The connection may have a packet to send. */
  schedule(connection: Connection): void {
    if (!connection.isScheduled) {
      connection.isScheduled = true;
      this.#ready.push(connection);
    }
    if (!this.#isBusy) this.fill();
  }

  /** The connection has news for its owner. */
  notify(connection: Connection): void {
    if (!connection.isNotified) {
      connection.isNotified = true;
      this.#news.push(connection);
    }
    if (!this.#isBusy) this.#dispatch();
  }

  /** Change connections without their owners being called before the next turn of the event loop. */
  quietly(change: () => void): void {
    this.#isBusy = true;
    try {
      change();
    } finally {
      this.#isBusy = false;
      this.resumeSoon();
    }
  }

  /** Go on in a turn of the event loop of its own. */
  resumeSoon(): void {
    if (this.#isResumed) return;
    this.#isResumed = true;
    setImmediate(() => {
      this.#isResumed = false;
      this.#dispatch();
      this.drain();
      this.fill();
    });
  }

  /** Tx ring to connections, at most a ring full at a time. */
  drain(): void {
    this.#work(this.#tx, TX, (queue) => {
      queue.disableKicks();
      for (let taken = 0; taken < queue.size; taken++) {
        if (!this.#pop(queue)) return;
        this.#receive(this.#chain);
        queue.push(this.#chain, 0);
      }
      this.resumeSoon();
    });
    this.fill();
  }

  /** Connections to rx ring, one packet of each in turn, while the guest has buffers; at most a ring full at a time. */
  fill(): void {
    if (this.#ready.length === 0 && this.resets.isEmpty) return;
    this.#work(this.#rx, RX, (queue) => {
      for (let sent = 0; sent < queue.size; sent++) {
        const connection = this.resets.isEmpty ? this.#nextReady() : undefined;
        if (connection === undefined && this.resets.isEmpty) {
          queue.disableKicks();
          return;
        }
        if (!this.#pop(queue)) return;
        this.#send(this.#chain, connection);
        queue.push(this.#chain, packet.HEADER_BYTES + this.#header.length);
      }
      this.resumeSoon();
    });
  }

  /** Work on a ring, publish what was used, then tell the owners. */
  #work(queue: SplitQueue | undefined, index: number, work: (queue: SplitQueue) => void): void {
    if (queue === undefined) return;
    let fault: QueueFault | undefined;
    this.#isBusy = true;
    try {
      work(queue);
    } catch (error) {
      if (!(error instanceof QueueFault)) throw error;
      fault = error;
    } finally {
      this.#isBusy = false;
    }
    if (queue.publish()) this.#handler.call(index);
    if (fault !== undefined) this.#handler.onFault(fault);
    this.#dispatch();
  }

  /** The next chain; where there is none, the driver kicks for it. */
  #pop(queue: SplitQueue): boolean {
    return queue.pop(this.#chain) || (queue.enableKicks() && queue.pop(this.#chain));
  }

  #dispatch(): void {
    try {
      for (let next = this.#news.shift(); next !== undefined; next = this.#news.shift()) {
        next.isNotified = false;
        next.dispatch();
      }
    } finally {
      // An owner threw: that is between it and the process, the others still get their news.
      if (this.#news.length > 0) this.resumeSoon();
    }
  }

  #receive(chain: Chain): void {
    const header = this.#header;
    if (chain.total < packet.HEADER_BYTES) {
      throw new QueueFault(
        `vsock tx queue, chain ${chain.head}: ${chain.total} bytes, expected a header of ${packet.HEADER_BYTES}`,
      );
    }
    if ((chain.lengths[0] as number) >= packet.HEADER_BYTES) {
      packet.readHeader((chain.regions[0] as Region).view, chain.offsets[0] as number, header);
    } else {
      chain.read(0, this.#scratch, 0, packet.HEADER_BYTES);
      packet.readHeader(this.#scratchView, 0, header);
    }
    this.#handler.onPacket(header, chain);
  }

  /** The connection whose turn it is; those that have nothing to send any more leave the line. */
  #nextReady(): Connection | undefined {
    for (;;) {
      const connection = this.#ready[0];
      if (connection === undefined || connection.isSendable) return connection;
      connection.isScheduled = false;
      this.#ready.shift();
    }
  }

  /** Put the packet of a connection, or the next RST to nobody's, into a buffer of the guest. */
  #send(chain: Chain, connection: Connection | undefined): void {
    const header = this.#header;
    if (chain.total <= packet.HEADER_BYTES) {
      throw new QueueFault(
        `vsock rx queue, chain ${chain.head}: buffer of ${chain.total} bytes, too small for a packet`,
      );
    }
    if (connection === undefined) {
      this.resets.take(header);
    } else {
      this.#ready.shift();
      connection.compose(header, chain);
      if (connection.isSendable) this.#ready.push(connection);
      else connection.isScheduled = false;
    }
    if ((chain.lengths[0] as number) >= packet.HEADER_BYTES) {
      packet.writeHeader((chain.regions[0] as Region).view, chain.offsets[0] as number, header);
    } else {
      packet.writeHeader(this.#scratchView, 0, header);
      chain.write(0, this.#scratch, 0, packet.HEADER_BYTES);
    }
  }
}
