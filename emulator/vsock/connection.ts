/**
 * One connection as the device keeps it: the state machine of virtio 1.2, 5.10.6, without streams and rings around it.
 * Packets of the guest come in through `receive`, packets for the guest are asked for with `compose`.
 */
import { constants } from "node:os";
import { SystemError } from "../../linux/ffi.ts";
import { Inbox, RECEIVE_WINDOW } from "./inbox.ts";
import type { Segments } from "./memory.ts";
import { Outbox } from "./outbox.ts";
import * as packet from "./packet.ts";

/** Packets that a connection owes the guest. */
const OWES_REQUEST = 1;
const OWES_RESPONSE = 2;
const OWES_UPDATE = 4;
const OWES_CREDIT_REQUEST = 8;
const OWES_SHUTDOWN = 16;
const OWES_RESET = 32;
/** These wait neither for credit nor for data before them. */
const OWES_AT_ONCE = OWES_REQUEST | OWES_RESPONSE | OWES_UPDATE | OWES_CREDIT_REQUEST | OWES_RESET;

/** What a connection has to tell its owner. */
const NEWS_ESTABLISHED = 1;
const NEWS_READABLE = 2;
const NEWS_WRITTEN = 4;
const NEWS_SHUTDOWN = 8;
const NEWS_CLOSED = 16;

/** What a connection tells its owner; never from within `receive` or `compose`, always from `dispatch`. */
export interface ConnectionOwner {
  /** Both sides agreed. */
  onEstablished(): void;
  /** `take` has bytes, or the guest's end. */
  onReadable(): void;
  /** The connection is gone; only bytes that came before may still be taken. */
  onClosed(error: SystemError | undefined): void;
}

export interface ConnectionAddress {
  /** Our end: 3, 2 or 0. */
  readonly localCid: number;
  readonly localPort: number;
  readonly remoteCid: number;
  readonly remotePort: number;
}

/** The device, as a connection sees it. */
export interface ConnectionHost {
  /** The connection may have a packet to send. */
  schedule(connection: Connection): void;
  /** The connection has news for its owner: call `dispatch` when no ring is being worked on. */
  notify(connection: Connection): void;
  /** The connection is over and its address free. */
  release(connection: Connection): void;
}

type WriteErrorCode = "ECONNRESET" | "EPIPE";

export type Callback = (error?: Error | null) => void;

export class Connection {
  readonly address: ConnectionAddress;
  owner: ConnectionOwner | undefined;
  /** Whether the host has it in its list of those with something to send, of those with news. */
  isScheduled = false;
  isNotified = false;

  readonly #host: ConnectionHost;
  #state: "connecting" | "established" | "resetting" | "closed";
  #owes: number;
  #news = 0;
  readonly #inbox = new Inbox();
  readonly #outbox = new Outbox();
  /** What the guest's SHUTDOWN packets said: it sends no more, it receives no more. */
  #hasEnded = false;
  #isDeaf = false;
  #onWritten: Callback | undefined;
  #onShutdown: Callback | undefined;
  #writeError: SystemError | undefined;
  #closeError: SystemError | undefined;

  /** `origin`: who opens. The caller goes on with `accept`, or with `host.schedule` for our REQUEST. */
  constructor(host: ConnectionHost, address: ConnectionAddress, origin: "guest" | "parent") {
    this.#host = host;
    this.address = address;
    this.#state = origin === "guest" ? "established" : "connecting";
    this.#owes = origin === "guest" ? OWES_RESPONSE : OWES_REQUEST;
  }

  /** Our REQUEST has not gone out: the guest knows nothing of this connection. */
  get isUnsent(): boolean {
    return this.#state === "connecting" && (this.#owes & OWES_REQUEST) !== 0;
  }

  get #isOver(): boolean {
    return this.#state === "resetting" || this.#state === "closed";
  }

  // ---- packets from the guest

  /** Take the guest's REQUEST; answers RESPONSE. */
  accept(request: Readonly<packet.PacketHeader>): void {
    this.#outbox.update(request.bufferSize, request.forwarded);
    this.#tell(NEWS_ESTABLISHED);
    this.#host.schedule(this);
  }

  /** Take a packet whose payload, `header.length` bytes, lies in `chain` after the header. */
  receive(header: Readonly<packet.PacketHeader>, chain: Segments): void {
    if (this.#isOver) return;
    this.#outbox.update(header.bufferSize, header.forwarded);
    if (this.#state === "connecting" && header.op !== packet.OP_RESPONSE && header.op !== packet.OP_RST) {
      this.abort(`operation ${header.op} before RESPONSE`);
      return;
    }
    switch (header.op) {
      case packet.OP_RESPONSE:
        this.#receiveResponse();
        break;
      case packet.OP_RW:
        this.#receiveData(header.length, chain);
        break;
      case packet.OP_SHUTDOWN:
        this.#receiveShutdown(header.flags);
        break;
      case packet.OP_RST:
        this.#receiveReset();
        break;
      case packet.OP_CREDIT_REQUEST:
        this.#owe(OWES_UPDATE);
        break;
      case packet.OP_CREDIT_UPDATE:
        break;
      default:
        this.abort(`operation ${header.op} on an open connection`);
    }
    if (this.#outbox.unsent > 0) this.#host.schedule(this);
  }

  #receiveResponse(): void {
    if (this.#state !== "connecting") {
      this.abort("a second RESPONSE");
      return;
    }
    this.#state = "established";
    this.#tell(NEWS_ESTABLISHED);
  }

  #receiveData(length: number, chain: Segments): void {
    if (this.#hasEnded) {
      this.abort("data after SHUTDOWN");
    } else if (this.#inbox.unread + length > RECEIVE_WINDOW) {
      this.abort(`${length} bytes with ${this.#inbox.unread} unread, window ${RECEIVE_WINDOW}`);
    } else if (length > 0) {
      this.#inbox.store(chain, packet.HEADER_BYTES, length);
      this.#tell(NEWS_READABLE);
    }
  }

  #receiveShutdown(flags: number): void {
    if (flags & packet.SHUTDOWN_SEND) {
      this.#hasEnded = true;
      this.#tell(NEWS_READABLE);
    }
    if (flags & packet.SHUTDOWN_RECEIVE) this.#isDeaf = true;
    // 5.10.6.5: both flags are answered with RST, which ends the connection cleanly. What came before stays readable.
    if (this.#hasEnded && this.#isDeaf) this.#close(OWES_RESET, undefined, "EPIPE");
    else if (this.#isDeaf) this.#failWriting("EPIPE");
  }

  #receiveReset(): void {
    const syscall = this.#state === "connecting" ? "connect" : "read";
    // After the guest's end nothing is lost to the reader.
    const error = this.#hasEnded ? undefined : this.#error(syscall, "ECONNRESET");
    this.#close(0, error, "ECONNRESET");
  }

  /** The guest broke the protocol on this connection: RST to it, ECONNRESET to the owner. */
  abort(what: string): void {
    if (!this.#isOver) this.#close(OWES_RESET, this.#error("read", "ECONNRESET", what), "ECONNRESET");
  }

  // ---- the owner's side

  /** Take what was received: bytes, null once at the guest's end, undefined when there is nothing now. */
  take(): Buffer | null | undefined {
    const chunk = this.#inbox.take();
    if (chunk === undefined) return this.#hasEnded ? null : undefined;
    if (this.#inbox.isUpdateDue && this.#state === "established" && !this.#hasEnded) this.#owe(OWES_UPDATE);
    return chunk;
  }

  /** Send all of `chunks`, then call back. One call at a time. */
  send(chunks: readonly Uint8Array[], callback: Callback): void {
    if (this.#isOver || this.#isDeaf) {
      callback(this.#error("write", "EPIPE"));
      return;
    }
    this.#outbox.put(chunks);
    if (this.#outbox.unsent === 0) {
      callback();
      return;
    }
    this.#onWritten = callback;
    this.#askCredit();
    this.#host.schedule(this);
  }

  /** Tell the guest that no more comes, after all that was sent. */
  shutdown(callback: Callback): void {
    if (this.#isOver || this.#isDeaf) {
      callback();
      return;
    }
    this.#onShutdown = callback;
    this.#owe(OWES_SHUTDOWN);
  }

  /** Forget the connection: RST to the guest where it knows of it. No news any more. Idempotent. */
  reset(): void {
    this.owner = undefined;
    this.#inbox.clear();
    if (!this.#isOver) this.#close(this.isUnsent ? 0 : OWES_RESET, undefined, "ECONNRESET");
  }

  /** The guest is gone. */
  drop(): void {
    if (this.#state === "closed") return;
    const error = this.#isOver ? undefined : this.#error("read", "ECONNRESET", "the enclave is gone");
    this.#close(0, error, "ECONNRESET");
  }

  // ---- packets for the guest

  /** Whether `compose` has a packet now. */
  get isSendable(): boolean {
    if (this.#owes & OWES_AT_ONCE) return true;
    if (this.#state !== "established") return false;
    return this.#outbox.unsent > 0 ? this.#outbox.credit > 0 : (this.#owes & OWES_SHUTDOWN) !== 0;
  }

  /** Write the next packet's header into `header`, its payload into `chain` behind the header. Only where `isSendable`. */
  compose(header: packet.PacketHeader, chain: Segments): void {
    header.srcCid = this.address.localCid;
    header.srcPort = this.address.localPort;
    header.dstCid = this.address.remoteCid;
    header.dstPort = this.address.remotePort;
    header.type = packet.TYPE_STREAM;
    header.bufferSize = RECEIVE_WINDOW;
    header.forwarded = this.#inbox.forwarded;
    header.flags = 0;
    header.length = 0;
    this.#inbox.tell();
    header.op = this.#nextOperation();
    if (header.op === packet.OP_RW) {
      header.length = this.#outbox.take(chain, packet.HEADER_BYTES, chain.total - packet.HEADER_BYTES);
      if (this.#outbox.unsent === 0) this.#tell(NEWS_WRITTEN);
      else this.#askCredit();
    } else if (header.op === packet.OP_SHUTDOWN) {
      header.flags = packet.SHUTDOWN_SEND;
      this.#tell(NEWS_SHUTDOWN);
    } else if (header.op === packet.OP_RST) {
      this.#state = "closed";
      this.#host.release(this);
    }
  }

  #nextOperation(): number {
    const owes = this.#owes;
    // Every packet carries fwd_cnt, so any of them pays for an update.
    this.#owes &= ~OWES_UPDATE;
    if (owes & OWES_RESET) return this.#pay(OWES_RESET, packet.OP_RST);
    if (owes & OWES_REQUEST) return this.#pay(OWES_REQUEST, packet.OP_REQUEST);
    if (owes & OWES_RESPONSE) return this.#pay(OWES_RESPONSE, packet.OP_RESPONSE);
    if (owes & OWES_CREDIT_REQUEST) return this.#pay(OWES_CREDIT_REQUEST, packet.OP_CREDIT_REQUEST);
    if (this.#outbox.unsent > 0 && this.#outbox.credit > 0) return packet.OP_RW;
    if (owes & OWES_UPDATE) return packet.OP_CREDIT_UPDATE;
    return this.#pay(OWES_SHUTDOWN, packet.OP_SHUTDOWN);
  }

  #pay(debt: number, operation: number): number {
    this.#owes &= ~debt;
    return operation;
  }

  #owe(debt: number): void {
    this.#owes |= debt;
    this.#host.schedule(this);
  }

  /** Where the credit ran out with bytes left: the guest's own update may be far away. */
  #askCredit(): void {
    if (this.#outbox.credit === 0) this.#owe(OWES_CREDIT_REQUEST);
  }

  // ---- news

  /** Tell the owner what happened. Not from within `receive` or `compose`. */
  dispatch(): void {
    const news = this.#news;
    this.#news = 0;
    if (news & NEWS_ESTABLISHED) this.owner?.onEstablished();
    if (news & NEWS_READABLE) this.owner?.onReadable();
    if (news & NEWS_WRITTEN) {
      const callback = this.#onWritten;
      this.#onWritten = undefined;
      callback?.(this.#writeError);
    }
    if (news & NEWS_SHUTDOWN) {
      const callback = this.#onShutdown;
      this.#onShutdown = undefined;
      callback?.();
    }
    if (news & NEWS_CLOSED) this.owner?.onClosed(this.#closeError);
  }

  #tell(news: number): void {
    this.#news |= news;
    this.#host.notify(this);
  }

  /** The end. `debt`: OWES_RESET, or nothing where the guest knows already. */
  #close(debt: number, error: SystemError | undefined, writeError: WriteErrorCode): void {
    this.#owes = debt;
    this.#state = debt === 0 ? "closed" : "resetting";
    this.#closeError = error;
    this.#failWriting(writeError);
    this.#tell(NEWS_SHUTDOWN | NEWS_CLOSED);
    if (debt === 0) this.#host.release(this);
    else this.#host.schedule(this);
  }

  #failWriting(code: WriteErrorCode): void {
    if (this.#outbox.unsent > 0) this.#writeError = this.#error("write", code);
    this.#outbox.clear();
    this.#tell(NEWS_WRITTEN);
  }

  #error(syscall: string, code: WriteErrorCode, detail = ""): SystemError {
    const { localCid, localPort, remoteCid, remotePort } = this.address;
    const where = `vsock ${localCid}:${localPort} and ${remoteCid}:${remotePort}`;
    return new SystemError(syscall, constants.errno[code], detail === "" ? where : `${where}: ${detail}`);
  }
}
