/**
 * One direction of a relayed pair: bytes from a socket to its peer, through one buffer for all flows of a thread.
 *
 * Not splice(2) through a pipe: measured between TCP and a Unix socket it takes as much processor time in one direction, and
 * twice as much in the other.
 */
import { constants } from "node:os";
import { VSOCK_WRITE_MAX } from "../format/abi.ts";
import { bind, check, errno, ffi } from "./ffi.ts";

// Sizes and results fit 32 bits, of which a result is read as a number: a ssize_t would be a bigint for each call.
const libc = bind({
  recv: { arguments: ["i32", "u64", "u64", "i32"], return: "i32" },
  send: { arguments: ["i32", "u64", "u64", "i32"], return: "i32" },
  getsockopt: { arguments: ["i32", "i32", "i32", "buffer", "buffer"], return: "i32" },
});

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_DOMAIN = 39;
const AF_VSOCK = 40;
const { EAGAIN, EPIPE } = constants.errno;

/** Bytes of one read: of larger ones the processor's cache keeps less. Whole pieces of VSOCK_WRITE_MAX. */
const READ_MAX = 4 * VSOCK_WRITE_MAX;
const READ_MAX_LONG = BigInt(READ_MAX);

const buffer = new Uint8Array(READ_MAX);
const address = ffi.getRawPointer(buffer);

/** What `Flow.advance` came to. */
export const OUTCOME = {
  /** There may be more to read. */
  more: 0,
  /** Nothing to read until the socket's next event. */
  dry: 1,
  /** The peer's buffer is full until its next event. */
  full: 2,
  /** The end came, and all before it was passed on. */
  ended: 3,
  /** The peer closed, and takes no more. */
  refused: 4,
  /** Either socket failed. */
  failed: 5,
} as const;
export type Outcome = (typeof OUTCOME)[keyof typeof OUTCOME];

/** What flows of one kind carried so far. */
export interface Tally {
  bytes: number;
}

export class Flow {
  readonly #from: number;
  readonly #to: number;
  /** Bytes that the peer is given at once. */
  readonly #pieceMax: number;
  readonly #tally: Tally;
  /** Read, and not yet taken by the peer. */
  #pending: Uint8Array | undefined;
  #hasEnded = false;

  /** Between two connected sockets; `head` goes first. Throws SystemError (ENOTSOCK). */
  constructor(from: number, to: number, tally: Tally, head?: Uint8Array) {
    this.#from = from;
    this.#to = to;
    this.#pieceMax = pieceMax(to);
    this.#tally = tally;
    this.#pending = head;
  }

  /** What is kept, then one read at most, written. `isEnding`: an end is known to follow the bytes that wait. */
  advance(isEnding: boolean): Outcome {
    if (this.#pending !== undefined) {
      const outcome = this.#writePending(this.#pending);
      if (outcome !== OUTCOME.more) return outcome;
    }
    if (this.#hasEnded) return OUTCOME.ended;
    const count = libc.recv(this.#from, address, READ_MAX_LONG, MSG_DONTWAIT);
    if (count === 0) {
      this.#hasEnded = true;
      return OUTCOME.ended;
    }
    if (count < 0) return errno() === EAGAIN ? OUTCOME.dry : OUTCOME.failed;
    const outcome = this.#write(buffer, address, count);
    // Less than asked for: there is no more until the next event (epoll(7), "Questions and answers", 9).
    return outcome === OUTCOME.more && count < READ_MAX && !isEnding ? OUTCOME.dry : outcome;
  }

  #writePending(pending: Uint8Array): Outcome {
    this.#pending = undefined;
    return this.#write(pending, ffi.getRawPointer(pending), pending.length);
  }

  #write(bytes: Uint8Array, start: bigint, length: number): Outcome {
    for (let done = 0; done < length; ) {
      const size = Math.min(length - done, this.#pieceMax);
      const count = libc.send(this.#to, start + BigInt(done), BigInt(size), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count >= 0) {
        done += count;
        this.#tally.bytes += count;
      } else if (errno() === EAGAIN) {
        // A copy where it is everyone's buffer.
        this.#pending = bytes === buffer ? bytes.slice(done, length) : bytes.subarray(done);
        return OUTCOME.full;
      } else {
        return errno() === EPIPE ? OUTCOME.refused : OUTCOME.failed;
      }
    }
    return OUTCOME.more;
  }
}

/** Most that a socket is given at once, bytes: an AF_VSOCK peer is behind kernels that are not ours. Throws SystemError. */
export function pieceMax(fd: number): number {
  const domain = new Int32Array(1);
  const result = libc.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, domain, new Uint32Array([4]));
  check(result, "getsockopt", "SO_DOMAIN");
  return domain[0] === AF_VSOCK ? VSOCK_WRITE_MAX : READ_MAX;
}
