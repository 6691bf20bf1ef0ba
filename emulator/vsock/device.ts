/**
 * The vsock device of one enclave: a vhost-user-vsock back-end that speaks for the parent (CID 3, and 2) in this process.
 * virtio 1.2, 5.10; QEMU docs/interop/vhost-user.rst. All guest bytes are hostile: a broken packet costs the guest its
 * connection, a broken ring costs it the device, nothing costs us the process or memory without bound.
 */
import { constants } from "node:os";
import { CID_HOST, CID_PARENT } from "../../format/abi.ts";
import { closeDescriptor, makeSocketPair } from "../../linux/descriptor.ts";
import { SystemError } from "../../linux/ffi.ts";
import { Connection, type ConnectionAddress, type ConnectionHost } from "./connection.ts";
import { QueueFault, type Region } from "./memory.ts";
import * as packet from "./packet.ts";
import { Chain, type SplitQueue } from "./queue.ts";
import { VsockStream } from "./stream.ts";
import { ConnectionTable, Resets } from "./table.ts";
import { type VhostDevice, VhostSession } from "./vhost.ts";

/** virtio 1.2, 5.10.2: rx is what the driver receives. QEMU keeps the event queue to itself. */
const RX = 0;
const TX = 1;

/** Linux's default is 2 s (af_vsock.c VSOCK_DEFAULT_CONNECT_TIMEOUT), too short for a busy machine without KVM. */
const CONNECT_TIMEOUT_MS = 10_000;

export interface VsockDeviceOptions {
  readonly guestCid: number;
  /** The guest's kernel broke the ring protocol, or QEMU the vhost-user one. Connections got ECONNRESET. */
  readonly onFault?: (error: Error) => void;
}

export interface VsockListenOptions {
  /** Default: CID_PARENT and CID_HOST. */
  readonly cids?: readonly number[];
}

export interface VsockConnectOptions {
  /** Default: CID_PARENT. */
  readonly sourceCid?: number;
  /** Default: 10 s. */
  readonly timeoutMs?: number;
}

type OnConnection = (stream: VsockStream) => void;

export class VsockDevice implements VhostDevice, ConnectionHost {
  readonly config: Uint8Array;
  readonly queues = [
    { name: "vsock rx", direction: "write" },
    { name: "vsock tx", direction: "read" },
  ] as const;
  /** Settles when QEMU is gone, or the device was closed. */
  readonly closed: Promise<void>;
  /** QEMU's end of the vhost-user socket: for the child to inherit, then `closeQemuDescriptor()`. */
  readonly qemuDescriptor: number;

  readonly #options: VsockDeviceOptions;
  readonly #session: VhostSession;
  readonly #listeners = new Map<string, OnConnection>();
  readonly #table = new ConnectionTable();
  readonly #resets = new Resets();
  readonly #settleClosed: () => void;
  #isQemuOpen = true;
  #isClosed = false;

  #rx: SplitQueue | undefined;
  #tx: SplitQueue | undefined;
  readonly #chain = new Chain();
  readonly #header = packet.emptyHeader();
  readonly #scratch = new Uint8Array(packet.HEADER_BYTES);
  readonly #scratchView = new DataView(this.#scratch.buffer);
  #resumes: NodeJS.Immediate | undefined;

  /** Connections with something to send, in turn; those with news for their owners. */
  #ready: Connection[] = [];
  #news: Connection[] = [];
  /** A ring is being worked on: no owner may be called. */
  #isBusy = false;

  constructor(options: VsockDeviceOptions) {
    this.#options = options;
    // struct virtio_vsock_config { le64 guest_cid } (5.10.4)
    this.config = new Uint8Array(new BigUint64Array([BigInt(options.guestCid)]).buffer);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = resolve;
    const [ours, qemus] = makeSocketPair();
    this.qemuDescriptor = qemus;
    this.#session = new VhostSession(ours, this);
  }

  closeQemuDescriptor(): void {
    if (this.#isQemuOpen) closeDescriptor(this.qemuDescriptor);
    this.#isQemuOpen = false;
  }

  /** How many connections the guest and we have open, or still say goodbye to. */
  get connectionCount(): number {
    return this.#table.size;
  }

  /**
   * Accept the guest's connections to `port` of each of `cids`. The callback gets streams that are open both ways.
   * Throws SystemError EADDRINUSE.
   */
  listen(port: number, onConnection: OnConnection, options: VsockListenOptions = {}): { close(): void } {
    const keys = (options.cids ?? [CID_PARENT, CID_HOST]).map((cid) => `${cid}:${port}`);
    const taken = keys.find((key) => this.#listeners.has(key));
    if (taken !== undefined) throw new SystemError("bind", constants.errno.EADDRINUSE, `vsock ${taken}`);
    for (const key of keys) this.#listeners.set(key, onConnection);
    return {
      close: () => {
        for (const key of keys) {
          if (this.#listeners.get(key) === onConnection) this.#listeners.delete(key);
        }
      },
    };
  }

  /** Connect to the guest's `port`. Rejects SystemError: ECONNRESET (refused, or the guest is gone), ETIMEDOUT. */
  connect(port: number, options: VsockConnectOptions = {}): Promise<VsockStream> {
    const { sourceCid = CID_PARENT, timeoutMs = CONNECT_TIMEOUT_MS } = options;
    const { promise, resolve, reject } = Promise.withResolvers<VsockStream>();
    const where = `vsock ${this.#options.guestCid}:${port}`;
    if (this.#isClosed || this.#table.isFull) {
      const code = this.#isClosed ? "ECONNRESET" : "EADDRNOTAVAIL";
      return Promise.reject(new SystemError("connect", constants.errno[code], where));
    }
    const localPort = this.#table.freePort(sourceCid, port);
    const address = { localCid: sourceCid, localPort, remoteCid: this.#options.guestCid, remotePort: port };
    const connection = new Connection(this, address, "parent");
    this.#table.add(connection);
    const timer = setTimeout(() => {
      connection.reset();
      reject(new SystemError("connect", constants.errno.ETIMEDOUT, `${where}, ${timeoutMs} ms`));
    }, timeoutMs);
    connection.owner = {
      onEstablished: () => {
        clearTimeout(timer);
        resolve(new VsockStream(connection));
      },
      onReadable: () => {},
      onClosed: (error) => {
        clearTimeout(timer);
        reject(error);
      },
    };
    this.schedule(connection);
    return promise;
  }

  /** End the session with QEMU: every stream gets ECONNRESET. Idempotent. */
  close(): void {
    this.#session.close();
  }

  // ---- VhostDevice

  onStart(index: number, queue: SplitQueue, isReset: boolean): void {
    if (isReset) this.#dropAll();
    if (index === RX) this.#rx = queue;
    else this.#tx = queue;
    queue.disableKicks();
    this.#resumeSoon();
  }

  onStop(index: number): void {
    if (index === RX) this.#rx = undefined;
    else this.#tx = undefined;
  }

  onKick(index: number): void {
    if (index === TX) this.#drain();
    else this.#fill();
  }

  onClose(error: Error | undefined): void {
    this.#isClosed = true;
    this.closeQemuDescriptor();
    this.#listeners.clear();
    this.#dropAll();
    this.#settleClosed();
    if (error !== undefined) this.#options.onFault?.(error);
  }

  // ---- ConnectionHost

  schedule(connection: Connection): void {
    if (!connection.isScheduled) {
      connection.isScheduled = true;
      this.#ready.push(connection);
    }
    if (!this.#isBusy) this.#fill();
  }

  notify(connection: Connection): void {
    if (!connection.isNotified) {
      connection.isNotified = true;
      this.#news.push(connection);
    }
    if (!this.#isBusy) this.#dispatch();
  }

  release(connection: Connection): void {
    this.#table.delete(connection);
  }

  #dropAll(): void {
    this.#isBusy = true;
    this.#resets.clear();
    for (const connection of this.#table.all()) {
      // A REQUEST that waits for its first driver goes to the next one.
      if (this.#isClosed || !connection.isUnsent) connection.drop();
    }
    this.#isBusy = false;
    this.#resumeSoon();
  }

  /** Work from a turn of the event loop of its own: not from within a vhost-user message, whose errors end the session. */
  #resumeSoon(): void {
    this.#resumes ??= setImmediate(() => {
      this.#resumes = undefined;
      this.#dispatch();
      this.#drain();
      this.#fill();
    });
  }

  // ---- the guest's packets: tx ring to connections

  /** Take what the guest sent, at most a ring full at a time so that the rest of the process has its turns. */
  #drain(): void {
    if (this.#tx === undefined) return;
    this.#work(this.#tx, TX, (queue) => {
      queue.disableKicks();
      for (let taken = 0; taken < queue.size; taken++) {
        if (!this.#pop(queue)) return;
        this.#receive(this.#chain);
        queue.push(this.#chain, 0);
      }
      this.#resumeSoon();
    });
    this.#fill();
  }

  /** The next chain; where there is none, the driver kicks for the next. */
  #pop(queue: SplitQueue): boolean {
    return queue.pop(this.#chain) || (queue.enableKicks() && queue.pop(this.#chain));
  }

  /** Work on a ring, publish what was used, then tell the owners. A fault of the driver stops the device. */
  #work(queue: SplitQueue, index: number, work: (queue: SplitQueue) => void): void {
    this.#isBusy = true;
    try {
      work(queue);
    } catch (error) {
      if (!(error instanceof QueueFault)) throw error;
      this.#fault(error);
    } finally {
      this.#isBusy = false;
    }
    if (queue.publish()) this.#session.call(index);
    this.#dispatch();
  }

  #dispatch(): void {
    try {
      for (let next = this.#news.shift(); next !== undefined; next = this.#news.shift()) {
        next.isNotified = false;
        next.dispatch();
      }
    } finally {
      // An owner's callback threw: that is between it and the process, the others still get their news.
      if (this.#news.length > 0) this.#resumeSoon();
    }
  }

  #fault(error: QueueFault): void {
    this.#session.fail();
    this.#dropAll();
    this.#options.onFault?.(error);
  }

  #receive(chain: Chain): void {
    const header = this.#header;
    if (chain.total < packet.HEADER_BYTES) {
      throw new QueueFault(
        `vsock tx queue, chain ${chain.head}: ${chain.total} bytes, a header has ${packet.HEADER_BYTES}`,
      );
    }
    if ((chain.lengths[0] as number) >= packet.HEADER_BYTES) {
      packet.readHeader((chain.regions[0] as Region).view, chain.offsets[0] as number, header);
    } else {
      chain.read(0, this.#scratch, 0, packet.HEADER_BYTES);
      packet.readHeader(this.#scratchView, 0, header);
    }
    const connection = this.#table.find(header.dstCid, header.dstPort, header.srcPort);
    if (connection !== undefined && this.#isSound(header, chain)) connection.receive(header, chain);
    else if (!this.#accept(header, chain)) this.#refuse(header, connection);
  }

  #isSound(header: Readonly<packet.PacketHeader>, chain: Chain): boolean {
    return (
      header.type === packet.TYPE_STREAM &&
      header.srcCid === this.#options.guestCid &&
      header.length <= chain.total - packet.HEADER_BYTES
    );
  }

  #accept(header: Readonly<packet.PacketHeader>, chain: Chain): boolean {
    if (header.op !== packet.OP_REQUEST || !this.#isSound(header, chain) || this.#table.isFull) return false;
    const onConnection = this.#listeners.get(`${header.dstCid}:${header.dstPort}`);
    if (onConnection === undefined) return false;
    const connection = new Connection(this, addressOf(header), "guest");
    this.#table.add(connection);
    connection.owner = {
      onEstablished: () => onConnection(new VsockStream(connection)),
      onReadable: () => {},
      onClosed: () => {},
    };
    connection.accept(header);
    return true;
  }

  /** 5.10.6.4: no such connection, or a packet that makes no sense. RST is never answered with RST. */
  #refuse(header: Readonly<packet.PacketHeader>, connection: Connection | undefined): void {
    if (connection !== undefined && header.srcCid === this.#options.guestCid)
      connection.abort("a malformed packet");
    else if (header.op !== packet.OP_RST) this.#resets.add(header);
  }

  // ---- packets for the guest: connections to rx ring

  /** Send while the guest has buffers, one packet of each connection in turn. */
  #fill(): void {
    if (this.#rx === undefined || (this.#ready.length === 0 && this.#resets.isEmpty)) return;
    this.#work(this.#rx, RX, (queue) => {
      for (let sent = 0; sent < queue.size; sent++) {
        const connection = this.#resets.isEmpty ? this.#nextReady() : undefined;
        if (connection === undefined && this.#resets.isEmpty) {
          queue.disableKicks();
          return;
        }
        if (!this.#pop(queue)) return;
        this.#send(this.#chain, connection);
        queue.push(this.#chain, packet.HEADER_BYTES + this.#header.length);
      }
      this.#resumeSoon();
    });
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
      this.#resets.take(header);
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

function addressOf(header: Readonly<packet.PacketHeader>): ConnectionAddress {
  return {
    localCid: header.dstCid,
    localPort: header.dstPort,
    remoteCid: header.srcCid,
    remotePort: header.srcPort,
  };
}
