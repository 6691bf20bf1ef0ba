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
import type { QueueFault } from "./memory.ts";
import * as packet from "./packet.ts";
import type { Chain, SplitQueue } from "./queue.ts";
import { type VhostDevice, VhostSession } from "./session.ts";
import { VsockStream } from "./stream.ts";
import { ConnectionTable } from "./table.ts";
import { Traffic, type TrafficHandler, TX } from "./traffic.ts";

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

export class VsockDevice implements VhostDevice, ConnectionHost, TrafficHandler {
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
  readonly #traffic = new Traffic(this);
  readonly #settleClosed: () => void;
  #isQemuOpen = true;
  #isClosed = false;

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
    this.#traffic.start(index, queue);
  }

  onStop(index: number): void {
    this.#traffic.stop(index);
  }

  onKick(index: number): void {
    if (index === TX) this.#traffic.drain();
    else this.#traffic.fill();
  }

  onClose(error: Error | undefined): void {
    this.#isClosed = true;
    this.closeQemuDescriptor();
    this.#listeners.clear();
    this.#dropAll();
    this.#settleClosed();
    if (error !== undefined) this.#options.onFault?.(error);
  }

  #dropAll(): void {
    this.#traffic.quietly(() => {
      this.#traffic.resets.clear();
      for (const connection of this.#table.all()) {
        // A REQUEST that waits for its first driver goes to the next one.
        if (this.#isClosed || !connection.isUnsent) connection.drop();
      }
    });
  }

  // ---- ConnectionHost

  schedule(connection: Connection): void {
    this.#traffic.schedule(connection);
  }

  notify(connection: Connection): void {
    this.#traffic.notify(connection);
  }

  release(connection: Connection): void {
    this.#table.delete(connection);
  }

  // ---- TrafficHandler

  onPacket(header: Readonly<packet.PacketHeader>, chain: Chain): void {
    const connection = this.#table.find(header.dstCid, header.dstPort, header.srcPort);
    const isSound =
      header.type === packet.TYPE_STREAM &&
      header.srcCid === this.#options.guestCid &&
      header.length <= chain.total - packet.HEADER_BYTES;
    if (isSound && connection !== undefined) connection.receive(header, chain);
    else if (isSound && header.op === packet.OP_REQUEST && this.#accept(header)) return;
    else this.#refuse(header, connection);
  }

  call(index: number): void {
    this.#session.call(index);
  }

  onFault(fault: QueueFault): void {
    this.#session.fail();
    this.#dropAll();
    this.#options.onFault?.(fault);
  }

  #accept(header: Readonly<packet.PacketHeader>): boolean {
    const onConnection = this.#listeners.get(`${header.dstCid}:${header.dstPort}`);
    if (onConnection === undefined || this.#table.isFull) return false;
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
    else if (header.op !== packet.OP_RST) this.#traffic.resets.add(header);
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
