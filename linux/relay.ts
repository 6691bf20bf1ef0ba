/**
 * Bytes between pairs of connected sockets (TCP, AF_UNIX, AF_VSOCK), with epoll(7) and no stream of Node's: one buffer for
 * all of them, and for a message three system calls. A pair that waits takes a few hundred bytes.
 *
 * Edge-triggered: a peer that hangs up tells so once, also while nobody wants its bytes; level-triggered it would be told
 * again and again, or not at all.
 */
import { closeDescriptor } from "./descriptor.ts";
import { type Watcher, watchReadable } from "./event.ts";
import { isPeerGone } from "./exchange.ts";
import { bind, check } from "./ffi.ts";
import { Flow, OUTCOME, type Tally } from "./flow.ts";

const libc = bind({
  epoll_create1: { arguments: ["i32"], return: "i32" },
  epoll_ctl: { arguments: ["i32", "i32", "i32", "buffer"], return: "i32" },
  epoll_wait: { arguments: ["i32", "buffer", "i32", "i32"], return: "i32" },
  shutdown: { arguments: ["i32", "i32"], return: "i32" },
  setsockopt: { arguments: ["i32", "i32", "i32", "buffer", "u32"], return: "i32" },
});

/** sys/epoll.h */
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x1;
const EPOLLOUT = 0x4;
const EPOLLERR = 0x8;
const EPOLLHUP = 0x10;
const EPOLLRDHUP = 0x2000;
const EPOLLET = 0x8000_0000;
const LISTENING = (EPOLLIN | EPOLLRDHUP | EPOLLET) >>> 0;
const WAITING_TO_WRITE = (LISTENING | EPOLLOUT) >>> 0;

/** struct epoll_event: u32 events, then u64 data. Packed on x86_64 alone (sys/epoll.h, __EPOLL_PACKED). */
const DATA = process.arch === "x64" ? 4 : 8;
const EVENT_BYTES = DATA + 8;
const BATCH = 512;
/** Rounds until the rest of this process has a turn. */
const ROUNDS = 16;
/** Events of a round after which another look at the descriptors is not worth a system call. */
const FEW = 2;

const SHUT_WR = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
/** struct linger { int l_onoff; int l_linger }: close(2) of a TCP socket resets. */
const ABORTIVE = new Int32Array([1, 0]);

/** A socket, and the flow of bytes from it to its peer. */
interface End {
  readonly fd: number;
  readonly flow: Flow;
  peer: End | undefined;
  /** Bytes may wait to be read. */
  isReadable: boolean;
  /** An end follows the bytes that wait. */
  isEnding: boolean;
  /** The peer's buffer is full: its room is waited for. */
  isBlocked: boolean;
  /** The flow is over: the end was passed on, or the peer takes no more. */
  isOver: boolean;
  isQueued: boolean;
}

function makeEnd(fd: number, flow: Flow): End {
  return {
    fd,
    flow,
    peer: undefined,
    isReadable: false,
    isEnding: false,
    isBlocked: false,
    isOver: false,
    isQueued: false,
  };
}

const events = new DataView(new ArrayBuffer(EVENT_BYTES * BATCH));
const interest = new DataView(new ArrayBuffer(EVENT_BYTES));

export class Relay {
  readonly #epoll: number;
  readonly #watcher: Watcher;
  /** By descriptor. */
  readonly #ends = new Map<number, End>();
  /** Those with something to do, once each. */
  #queue: End[] = [];
  /** Closed after the round: until then their numbers are nobody else's. */
  #closing: number[] = [];
  #isScheduled = false;
  #isOpen = true;
  readonly #in: Tally = { bytes: 0 };
  readonly #out: Tally = { bytes: 0 };

  /** Throws SystemError EMFILE. */
  constructor() {
    this.#epoll = check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    // An epoll descriptor is readable when one of its own has news.
    this.#watcher = watchReadable(this.#epoll, () => this.#turn());
  }

  /** What enclaves were sent so far, bytes. */
  get bytesIn(): number {
    return this.#in.bytes;
  }

  /** What enclaves sent so far, bytes. */
  get bytesOut(): number {
    return this.#out.bytes;
  }

  /** Pairs that are open. */
  get size(): number {
    return this.#ends.size / 2;
  }

  /**
   * Relay between two connected sockets, which are the relay's from here on. An end is passed on as an end, behind all
   * bytes before it; an error as a reset. `head` goes to the enclave first. Throws SystemError (ENOSPC: the user has too
   * many epoll watches), with both sockets still the caller's, to be closed.
   */
  join(client: number, enclave: number, head?: Uint8Array): void {
    const one = makeEnd(client, new Flow(client, enclave, this.#in, head));
    const other = makeEnd(enclave, new Flow(enclave, client, this.#out));
    one.peer = other;
    other.peer = one;
    this.#watch(EPOLL_CTL_ADD, client, LISTENING);
    this.#watch(EPOLL_CTL_ADD, enclave, LISTENING);
    this.#ends.set(client, one).set(enclave, other);
    if (head === undefined) return;
    this.#enqueue(one);
    this.#schedule();
  }

  /** Every pair is reset. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const end of [...this.#ends.values()]) this.#end(end, true);
    this.#closeDescriptors();
    this.#watcher.close();
  }

  #watch(operation: number, fd: number, mask: number): void {
    interest.setUint32(0, mask, true);
    interest.setUint32(DATA, fd, true);
    check(libc.epoll_ctl(this.#epoll, operation, fd, interest), "epoll_ctl", `${operation} ${fd}`);
  }

  #enqueue(end: End): void {
    if (end.isQueued) return;
    end.isQueued = true;
    this.#queue.push(end);
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#isOpen) this.#turn();
    });
  }

  /** Everything that is ready, each end once a round. */
  #turn(): void {
    for (let round = 0; round < ROUNDS; round++) {
      const count = this.#collect();
      // Those that an error ended, which leaves nothing to pump.
      this.#closeDescriptors();
      if (this.#queue.length === 0) return;
      const queue = this.#queue;
      this.#queue = [];
      for (const end of queue) {
        end.isQueued = false;
        this.#pump(end);
      }
      this.#closeDescriptors();
      // Where little happens, nothing has happened meanwhile; if it has, the event loop says so.
      if (this.#queue.length === 0 && count <= FEW) return;
    }
    if (this.#queue.length > 0) this.#schedule();
  }

  /** How many events there were. */
  #collect(): number {
    const count = check(libc.epoll_wait(this.#epoll, events, BATCH, 0), "epoll_wait");
    for (let index = 0; index < count; index++) {
      const mask = events.getUint32(index * EVENT_BYTES, true);
      const end = this.#ends.get(events.getUint32(index * EVENT_BYTES + DATA, true));
      if (end?.peer !== undefined) this.#note(end, end.peer, mask);
    }
    return count;
  }

  #note(end: End, peer: End, mask: number): void {
    if (mask & EPOLLERR) {
      this.#end(end, true);
      return;
    }
    if (mask & (EPOLLIN | EPOLLHUP | EPOLLRDHUP)) {
      end.isReadable = true;
      if (mask & (EPOLLHUP | EPOLLRDHUP)) end.isEnding = true;
      if (!end.isBlocked) this.#enqueue(end);
    }
    if (mask & EPOLLOUT && peer.isBlocked) this.#enqueue(peer);
  }

  /** One read at most, and what it brings written. */
  #pump(end: End): void {
    const { peer } = end;
    // Ended since it was queued.
    if (peer === undefined) return;
    if (end.isOver) {
      // It had ended its writing; this is news of its reading.
      if (isPeerGone(end.fd)) this.#end(end, false);
      return;
    }
    const outcome = end.flow.advance(end.isEnding);
    if (end.isBlocked !== (outcome === OUTCOME.full)) this.#awaitRoom(end, peer, !end.isBlocked);
    if (outcome === OUTCOME.more) {
      if (end.isReadable) this.#enqueue(end);
    } else if (outcome === OUTCOME.dry) end.isReadable = false;
    else if (outcome === OUTCOME.ended) this.#passEnd(end, peer);
    else if (outcome === OUTCOME.refused) this.#stopFlow(end, peer);
    else if (outcome === OUTCOME.failed) this.#end(end, true);
  }

  #awaitRoom(end: End, peer: End, isBlocked: boolean): void {
    end.isBlocked = isBlocked;
    this.#watch(EPOLL_CTL_MOD, peer.fd, isBlocked ? WAITING_TO_WRITE : LISTENING);
  }

  /** The peer closed, and takes no more. What it said before still has to get to the other side. */
  #stopFlow(end: End, peer: End): void {
    end.isOver = true;
    peer.isReadable = true;
    peer.isEnding = true;
    if (peer.isOver) this.#end(end, false);
    else this.#enqueue(peer);
  }

  #passEnd(end: End, peer: End): void {
    end.isOver = true;
    // A socket that its owner closed can be told nothing: who is at the other end shall not wait for it.
    if (peer.isOver || isPeerGone(end.fd)) this.#end(end, false);
    // ENOTCONN: reset meanwhile, and its event is on its way.
    else libc.shutdown(peer.fd, SHUT_WR);
  }

  /** Both sockets go. Well: what was written is delivered, and an end behind it. */
  #end(end: End, isReset: boolean): void {
    const { peer } = end;
    if (peer === undefined) return;
    for (const { fd } of [end, peer]) {
      // Only TCP has resets: elsewhere the option is without effect.
      if (isReset) libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, ABORTIVE, ABORTIVE.byteLength);
      this.#ends.delete(fd);
      this.#closing.push(fd);
    }
    end.peer = undefined;
    peer.peer = undefined;
  }

  #closeDescriptors(): void {
    if (this.#closing.length === 0) return;
    for (const fd of this.#closing) closeDescriptor(fd);
    this.#closing = [];
  }
}
