/** A system call of the command that waits for its answer. */
import { constants } from "node:os";
import { NitroError } from "../../launcher/device.ts";
import { SystemError } from "../../linux/ffi.ts";
import { identify, processOf, readPeer, readPeerString, writePeer } from "../../linux/peer.ts";
import {
  type Answer,
  isWaiting,
  type Notification,
  sendAnswer,
  sendDescriptor,
} from "../../linux/seccomp.ts";
import { SYSCALL, type Syscall } from "./filter.ts";

const names = new Map<number, Syscall>(
  Object.entries(SYSCALL).map(([name, number]) => [number, name as Syscall]),
);

/** PATH_MAX (linux/limits.h). */
const PATH_MAX = 4096;

export class Call {
  readonly name: Syscall | undefined;
  readonly tid: number;
  readonly #listener: number;
  readonly #notification: Notification;
  #pid: number | undefined;

  constructor(listener: number, notification: Notification) {
    this.#listener = listener;
    this.#notification = notification;
    this.name = names.get(notification.number);
    this.tid = notification.tid;
  }

  /** The process of the thread. Throws ENOENT where it is gone. */
  get pid(): number {
    this.#pid ??= processOf(this.tid);
    return this.#pid;
  }

  /** An argument as the 64 bits it is. */
  word(index: number): bigint {
    return this.#notification.args[index] ?? 0n;
  }

  /** An argument of type int. */
  int(index: number): number {
    return Number(BigInt.asIntN(32, this.word(index)));
  }

  /** An argument of type unsigned int. */
  uint(index: number): number {
    return Number(BigInt.asUintN(32, this.word(index)));
  }

  /** What the descriptor in an argument refers to, the same for each of its copies; undefined for none (EBADF). */
  identify(index: number): string | undefined {
    try {
      return identify(this.tid, this.int(index));
    } catch {
      return undefined;
    }
  }

  /** The path that an argument points to; undefined where it is too long. Throws SystemError EFAULT. */
  path(index: number): string | undefined {
    return readPeerString(this.tid, this.word(index), PATH_MAX);
  }

  /** Throws SystemError EFAULT. */
  read(address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    readPeer(this.tid, address, bytes);
    return bytes;
  }

  /** Throws SystemError EFAULT. */
  write(address: bigint, bytes: Uint8Array): void {
    writePeer(this.tid, address, bytes);
  }

  /** False where nobody waits any more: the thread died or took a signal. */
  get isWaiting(): boolean {
    return isWaiting(this.#listener, this.#notification.id);
  }

  /** The result of the call. Like all answers, false where nobody waits for it any more. */
  succeed(value = 0): boolean {
    return this.#send({ value });
  }

  fail(errno: number): boolean {
    return this.#send({ errno });
  }

  /** The kernel goes on with it as if nobody had looked. */
  proceed(): boolean {
    return this.#send({ proceed: true });
  }

  /** A copy of our descriptor, which becomes the result; ours stays ours. `flags`: O_CLOEXEC or 0. */
  give(descriptor: number, flags: number): boolean {
    return sendDescriptor(this.#listener, this.#notification.id, descriptor, flags);
  }

  /** Answer with what an error stands for. Errors that are no refusal of a call are thrown on. */
  failWith(error: unknown): boolean {
    if (error instanceof NitroError || error instanceof SystemError) return this.fail(error.errno);
    const { code } = error as { code?: string };
    const errno = code === undefined ? undefined : constants.errno[code as keyof typeof constants.errno];
    if (errno === undefined) throw error;
    return this.fail(errno);
  }

  #send(answer: Answer): boolean {
    return sendAnswer(this.#listener, this.#notification.id, answer);
  }
}
