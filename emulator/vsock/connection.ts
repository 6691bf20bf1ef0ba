/**
 * One connection as the device keeps it: the state machine of virtio 1.2, 5.10.6, without streams and rings around it.
 * Packets of the guest come in through `receive`, packets for the guest are asked for with `compose`.
 */
import { constants } from "node:os";
import { SystemError } from "../../linux/ffi.ts";
import type { Segments } from "./memory.ts";
import * as packet from "./packet.ts";

/** Our buf_alloc: what the guest may have in flight to a connection that nobody reads, bytes. */
export const RECEIVE_WINDOW = 256 * 1024;
/** Small packets are gathered into chunks up to this size, so that a million of them cannot be a million objects. */
const CHUNK_BYTES = 64 * 1024;

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
  /** The guest accepted our REQUEST. */
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

export type WriteCallback = (error?: Error | null) => void;

export class Connection implements ConnectionAddress {
  readonly localCid: number;
  readonly localPort: number;
  readonly remoteCid: number;
  readonly remotePort: number;
  readonly #host: ConnectionHost;
  owner: ConnectionOwner | undefined;
  /** Whether the host has it in its list of those with something to send, of those with news. */
  isScheduled = false;
  isNotified = false;

  #state: "connecting" | "established" | "resetting" | "closed";
  #owes: number;

  readonly #received: Buffer[] = [];
  /** Bytes of the last element of `#received` that are filled. */
  #tailFilled = 0;
  #unread = 0;
  /** fwd_cnt: bytes taken by the owner, modulo 2^32, and as last told to the guest. */
  #forwarded = 0;
  #forwardedTold = 0;
  #peerEnded = false;
  #peerDeaf = false;

  #writing: readonly Uint8Array[] = [];
  #writingIndex = 0;
  #writingOffset = 0;
  #unsent = 0;
  #onWritten: WriteCallback | undefined;
  #onShutdown: WriteCallback | undefined;
  /** tx_cnt: bytes sent, modulo 2^32; and what the guest said about its side. */
  #sent = 0;
  #peerWindow = 0;
  #peerForwarded = 0;
  #creditAsked = false;

  #news = 0;
  #writeError: SystemError | undefined;
  #closeError: SystemError | undefined;

  /** `origin`: who opens. The caller goes on with `accept`, or `host.schedule` for our REQUEST. */
  constructor(host: ConnectionHost, address: ConnectionAddress, origin: "guest" | "parent") {
    this.#host = host;
    this.localCid = address.localCid;
    this.localPort = address.localPort;
    this.remoteCid = address.remoteCid;
    this.remotePort = address.remotePort;
    this.#state = origin === "guest" ? "established" : "connecting";
    this.#owes = origin === "guest" ? OWES_RESPONSE : OWES_REQUEST;
  }

  /** Our REQUEST has not gone out: the guest knows nothing of this connection. */
  get isUnsent(): boolean {
    return this.#state === "connecting" && (this.#owes & OWES_REQUEST) !== 0;
  }

  // ---- packets from the guest

  /** Take the guest's REQUEST; answers RESPONSE. */
  accept(request: Readonly<packet.PacketHeader>): void {
    this.#peerWindow = request.bufferSize;
    this.#peerForwarded = request.forwarded;
    this.#tell(NEWS_ESTABLISHED);
    this.#host.schedule(this);
  }

  /** Take a packet whose payload, `header.length` bytes, lies in `chain` after the header. */
  receive(header: Readonly<packet.PacketHeader>, chain: Segments): void {
    if (this.#state === "resetting" || this.#state === "closed") return;
    this.#peerWindow = header.bufferSize;
    if (this.#peerForwarded !== header.forwarded) this.#creditAsked = false;
    this.#peerForwarded = header.forwarded;
    if (this.#state === "connecting" && header.op !== packet.OP_RESPONSE && header.op !== packet.OP_RST) {
      this.abort("a packet before RESPONSE");
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
    if (this.#unsent > 0) this.#host.schedule(this);
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
    if (this.#peerEnded) {
      this.abort("data after SHUTDOWN");
    } else if (this.#unread + length > RECEIVE_WINDOW) {
      this.abort(`${length} bytes with ${this.#unread} unread, window ${RECEIVE_WINDOW}`);
    } else if (length > 0) {
      this.#store(length, chain);
      this.#tell(NEWS_READABLE);
    }
  }

  #store(length: number, chain: Segments): void {
    let tail = this.#received.at(-1);
    if (tail === undefined || tail.length - this.#tailFilled < length) {
      this.#trimTail();
      // As large as what waits already: the first packet gets its own size, a stalled reader's chunks double.
      const bytes = Math.max(length, Math.min(this.#unread, CHUNK_BYTES));
      tail = bytes < 4096 ? Buffer.allocUnsafe(bytes) : Buffer.allocUnsafeSlow(bytes);
      this.#received.push(tail);
      this.#tailFilled = 0;
    }
    chain.read(packet.HEADER_BYTES, tail, this.#tailFilled, length);
    this.#tailFilled += length;
    this.#unread += length;
  }

  #trimTail(): void {
    const last = this.#received.length - 1;
    const tail = this.#received[last];
    if (tail !== undefined && tail.length > this.#tailFilled)
      this.#received[last] = tail.subarray(0, this.#tailFilled);
  }

  #receiveShutdown(flags: number): void {
    if (flags & packet.SHUTDOWN_SEND && !this.#peerEnded) {
      this.#peerEnded = true;
      this.#tell(NEWS_READABLE);
    }
    if (flags & packet.SHUTDOWN_RECEIVE) this.#peerDeaf = true;
    // 5.10.6.5: both flags are answered with RST, which ends the connection cleanly. Bytes that came before stay readable.
    if (this.#peerEnded && this.#peerDeaf) {
      this.#owes = OWES_RESET;
      this.#close("resetting", undefined, "EPIPE");
      this.#host.schedule(this);
    } else if (this.#peerDeaf) {
      this.#failWriting("EPIPE");
    }
  }

  #receiveReset(): void {
    const syscall = this.#state === "connecting" ? "connect" : "read";
    // After the guest's end nothing is lost to the reader.
    const error = this.#peerEnded ? undefined : this.#error(syscall, "ECONNRESET");
    this.#owes = 0;
    this.#close("closed", error, "ECONNRESET");
  }

  /** The guest broke the protocol on this connection: RST to it, ECONNRESET to the owner. */
  abort(what: string): void {
    if (this.#state === "resetting" || this.#state === "closed") return;
    this.#owes = OWES_RESET;
    this.#close("resetting", this.#error("read", "ECONNRESET", what), "ECONNRESET");
    this.#host.schedule(this);
  }

  // ---- the owner's side

  /** Take what was received: bytes, null once at the guest's end, undefined when there is nothing now. */
  take(): Buffer | null | undefined {
    if (this.#unread === 0) {
      this.#received.length = 0;
      return this.#peerEnded ? null : undefined;
    }
    this.#trimTail();
    const chunk = this.#received.shift() as Buffer;
    if (this.#received.length === 0) this.#tailFilled = 0;
    this.#unread -= chunk.length;
    this.#forwarded = (this.#forwarded + chunk.length) >>> 0;
    // Half a window: the guest goes on sending while the news is on its way.
    if (
      (this.#forwarded - this.#forwardedTold) >>> 0 >= RECEIVE_WINDOW / 2 &&
      this.#state === "established"
    ) {
      if (!this.#peerEnded) this.#owe(OWES_UPDATE);
    }
    return chunk;
  }

  /** Send all of `chunks`, then call back. One call at a time. */
  send(chunks: readonly Uint8Array[], callback: WriteCallback): void {
    if (this.#state === "resetting" || this.#state === "closed" || this.#peerDeaf) {
      callback(this.#error("write", "EPIPE"));
      return;
    }
    let bytes = 0;
    for (const chunk of chunks) bytes += chunk.byteLength;
    if (bytes === 0) {
      callback();
      return;
    }
    this.#writing = chunks;
    this.#writingIndex = 0;
    this.#writingOffset = 0;
    this.#unsent = bytes;
    this.#onWritten = callback;
    if (this.#credit() === 0) this.#askCredit();
    this.#host.schedule(this);
  }

  /** Tell the guest that no more comes, after all that was sent. */
  shutdown(callback: WriteCallback): void {
    if (this.#state === "resetting" || this.#state === "closed" || this.#peerDeaf) {
      callback();
      return;
    }
    this.#onShutdown = callback;
    this.#owe(OWES_SHUTDOWN);
  }

  /** Forget the connection: RST to the guest where it knows of it. No news any more. Idempotent. */
  reset(): void {
    this.owner = undefined;
    this.#received.length = 0;
    this.#unread = 0;
    if (this.#state === "resetting" || this.#state === "closed") return;
    // A REQUEST that never went out needs no RST.
    const isUnknown = this.isUnsent;
    this.#owes = isUnknown ? 0 : OWES_RESET;
    this.#close(isUnknown ? "closed" : "resetting", undefined, "ECONNRESET");
    this.#host.schedule(this);
  }

  /** The guest is gone. */
  drop(): void {
    if (this.#state === "closed") return;
    this.#owes = 0;
    const wasOpen = this.#state !== "resetting";
    this.#close(
      "closed",
      wasOpen ? this.#error("read", "ECONNRESET", "the enclave is gone") : undefined,
      "ECONNRESET",
    );
  }

  // ---- packets for the guest

  /** Whether `compose` has a packet now. */
  get isSendable(): boolean {
    if (this.#owes & OWES_AT_ONCE) return true;
    if (this.#unsent > 0) return this.#state === "established" && this.#credit() > 0;
    return (this.#owes & OWES_SHUTDOWN) !== 0 && this.#state === "established";
  }

  /**
   * Write the next packet into `chain` after its header, and its header into `header`. Only where `isSendable`.
   * `chain` holds at least the header and one byte.
   */
  compose(header: packet.PacketHeader, chain: Segments): void {
    header.srcCid = this.localCid;
    header.srcPort = this.localPort;
    header.dstCid = this.remoteCid;
    header.dstPort = this.remotePort;
    header.type = packet.TYPE_STREAM;
    header.bufferSize = RECEIVE_WINDOW;
    header.forwarded = this.#forwarded;
    header.flags = 0;
    header.length = 0;
    header.op = this.#nextOperation();
    this.#forwardedTold = this.#forwarded;
    if (header.op === packet.OP_SHUTDOWN) {
      header.flags = packet.SHUTDOWN_SEND;
      this.#tell(NEWS_SHUTDOWN);
    } else if (header.op === packet.OP_RW) {
      header.length = Math.min(chain.total - packet.HEADER_BYTES, this.#unsent, this.#credit());
      this.#copyOut(chain, header.length);
    } else if (header.op === packet.OP_RST) {
      this.#state = "closed";
      this.#host.release(this);
    }
  }

  #nextOperation(): number {
    const owes = this.#owes;
    // Every packet carries fwd_cnt, so any of them pays for an update.
    this.#owes &= ~OWES_UPDATE;
    const pay = (debt: number, op: number): number => {
      this.#owes &= ~debt;
      return op;
    };
    if (owes & OWES_RESET) return pay(OWES_RESET, packet.OP_RST);
    if (owes & OWES_REQUEST) return pay(OWES_REQUEST, packet.OP_REQUEST);
    if (owes & OWES_RESPONSE) return pay(OWES_RESPONSE, packet.OP_RESPONSE);
    if (owes & OWES_CREDIT_REQUEST) return pay(OWES_CREDIT_REQUEST, packet.OP_CREDIT_REQUEST);
    if (this.#unsent > 0 && this.#state === "established" && this.#credit() > 0) return packet.OP_RW;
    if (owes & OWES_UPDATE) return packet.OP_CREDIT_UPDATE;
    return pay(OWES_SHUTDOWN, packet.OP_SHUTDOWN);
  }

  #copyOut(chain: Segments, length: number): void {
    for (let done = 0; done < length; ) {
      const chunk = this.#writing[this.#writingIndex] as Uint8Array;
      const bytes = Math.min(length - done, chunk.byteLength - this.#writingOffset);
      chain.write(packet.HEADER_BYTES + done, chunk, this.#writingOffset, bytes);
      done += bytes;
      this.#writingOffset += bytes;
      if (this.#writingOffset === chunk.byteLength) {
        this.#writingIndex++;
        this.#writingOffset = 0;
      }
    }
    this.#sent = (this.#sent + length) >>> 0;
    this.#unsent -= length;
    if (this.#unsent > 0) {
      if (this.#credit() === 0) this.#askCredit();
      return;
    }
    this.#writing = [];
    this.#tell(NEWS_WRITTEN);
  }

  /** 5.10.6.3: the guest's free buffer, bytes. A guest that claims to have taken more than it got has none. */
  #credit(): number {
    const inFlight = (this.#sent - this.#peerForwarded) >>> 0;
    return Math.max(0, this.#peerWindow - inFlight);
  }

  /** Once for each time that the credit runs out: the guest's own update may be far away. */
  #askCredit(): void {
    if (this.#creditAsked || this.#state !== "established") return;
    this.#creditAsked = true;
    this.#owe(OWES_CREDIT_REQUEST);
  }

  #owe(debt: number): void {
    this.#owes |= debt;
    this.#host.schedule(this);
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

  #close(state: "resetting" | "closed", error: SystemError | undefined, writeError: string): void {
    this.#state = state;
    this.#closeError = error;
    this.#failWriting(writeError);
    this.#tell(NEWS_SHUTDOWN | NEWS_CLOSED);
    if (state === "closed") this.#host.release(this);
  }

  #failWriting(code: string): void {
    if (this.#unsent > 0) this.#writeError = this.#error("write", code);
    this.#writing = [];
    this.#unsent = 0;
    this.#tell(NEWS_WRITTEN);
  }

  #error(syscall: string, code: string, detail = ""): SystemError {
    const number = constants.errno[code as keyof typeof constants.errno];
    const where = `vsock ${this.localCid}:${this.localPort} and ${this.remoteCid}:${this.remotePort}`;
    return new SystemError(syscall, number, detail === "" ? where : `${where}: ${detail}`);
  }
}
