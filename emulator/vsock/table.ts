/** The connections of one device by address, and the addresses that are owed an RST without being connections. */
import type { Connection, ConnectionAddress } from "./connection.ts";
import * as packet from "./packet.ts";

/** With a receive window each, what the guest can make us keep: 4096 times 256 KiB where no reader reads. */
export const CONNECTIONS_MAX = 4096;
/** A guest that sends nonsense and takes no packets gets no more RSTs than these. */
const RESETS_MAX = 256;
/** Our ports for connections to the guest: above any that an app listens on. */
const FIRST_LOCAL_PORT = 0x4000_0000;
const LAST_LOCAL_PORT = 0xffff_fffe;

function keyOf(localCid: number, localPort: number, remotePort: number): string {
  return `${localCid}:${localPort}:${remotePort}`;
}

export class ConnectionTable {
  readonly #connections = new Map<string, Connection>();
  /** Packets come in bursts of one connection. */
  #recent: Connection | undefined;
  #nextPort = FIRST_LOCAL_PORT;

  get size(): number {
    return this.#connections.size;
  }

  get isFull(): boolean {
    return this.#connections.size >= CONNECTIONS_MAX;
  }

  all(): Connection[] {
    return [...this.#connections.values()];
  }

  find(localCid: number, localPort: number, remotePort: number): Connection | undefined {
    const recent = this.#recent?.address;
    if (recent?.remotePort === remotePort && recent.localPort === localPort && recent.localCid === localCid) {
      return this.#recent;
    }
    const found = this.#connections.get(keyOf(localCid, localPort, remotePort));
    if (found !== undefined) this.#recent = found;
    return found;
  }

  add(connection: Connection): void {
    const { localCid, localPort, remotePort } = connection.address;
    this.#connections.set(keyOf(localCid, localPort, remotePort), connection);
  }

  delete(connection: Connection): void {
    const { localCid, localPort, remotePort } = connection.address;
    this.#connections.delete(keyOf(localCid, localPort, remotePort));
    if (this.#recent === connection) this.#recent = undefined;
  }

  /** A port of ours for a connection to `remotePort`. There is one: the table is smaller than the range. */
  freePort(localCid: number, remotePort: number): number {
    for (;;) {
      const port = this.#nextPort;
      this.#nextPort = port === LAST_LOCAL_PORT ? FIRST_LOCAL_PORT : port + 1;
      if (!this.#connections.has(keyOf(localCid, port, remotePort))) return port;
    }
  }
}

/** RSTs to send to addresses that have no connection, oldest first. */
export class Resets {
  readonly #addresses: ConnectionAddress[] = [];

  get isEmpty(): boolean {
    return this.#addresses.length === 0;
  }

  /** Owe an RST to the sender of a packet. */
  add(received: Readonly<packet.PacketHeader>): void {
    if (this.#addresses.length >= RESETS_MAX) return;
    this.#addresses.push({
      localCid: received.dstCid,
      localPort: received.dstPort,
      remoteCid: received.srcCid,
      remotePort: received.srcPort,
    });
  }

  /** Make `header` the oldest one. Only where not `isEmpty`. */
  take(header: packet.PacketHeader): void {
    const { localCid, localPort, remoteCid, remotePort } = this.#addresses.shift() as ConnectionAddress;
    header.srcCid = localCid;
    header.srcPort = localPort;
    header.dstCid = remoteCid;
    header.dstPort = remotePort;
    header.type = packet.TYPE_STREAM;
    header.op = packet.OP_RST;
    header.length = 0;
    header.flags = 0;
    header.bufferSize = 0;
    header.forwarded = 0;
  }

  clear(): void {
    this.#addresses.length = 0;
  }
}
