/**
 * A leash for a child process: when this process dies, however it dies, the kernel kills the child.
 *
 * The child inherits the read end of a pipe whose only write end is ours. The pipe's owner is the child and its signal
 * SIGKILL (fcntl(2): F_SETOWN, F_SETSIG, O_ASYNC), which the kernel sends when the last write end closes (fs/pipe.c,
 * pipe_release). Against PR_SET_PDEATHSIG it needs no program between us and the child (a Node that sets it and execs costs
 * 25 ms and more), and it does not fire when only the thread that started the child ends.
 */
import { constants } from "node:os";
import { closeDescriptor, makePipe } from "./descriptor.ts";
import { bind, check } from "./ffi.ts";

const { fcntl } = bind({ fcntl: { arguments: ["i32", "i32", "i64"], return: "i32" } });

/** asm-generic/fcntl.h; the same on x86_64 and aarch64. */
const F_SETFL = 4n;
const F_SETOWN = 8n;
const F_SETSIG = 10n;
const O_ASYNC = 0o20000n;

export interface Leash {
  /** The child's end: pass it to spawn() in `stdio`. */
  readonly descriptor: number;
  /**
   * Hold this child, which inherited the descriptor. Until then nothing kills it: start it so that it cannot run far
   * without us (QEMU ends when its vhost-user socket closes during start-up). Throws SystemError.
   */
  hold(pid: number): void;
  /** Let go: kills a child that is still held. Idempotent. */
  close(): void;
}

/** Throws SystemError (EMFILE). */
export function makeLeash(): Leash {
  const { readEnd, writeEnd } = makePipe();
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    closeDescriptor(readEnd);
    closeDescriptor(writeEnd);
  };
  return {
    descriptor: readEnd,
    hold(pid) {
      setControl(readEnd, F_SETSIG, BigInt(constants.signals.SIGKILL));
      setControl(readEnd, F_SETOWN, BigInt(pid));
      setControl(readEnd, F_SETFL, O_ASYNC);
    },
    close,
  };
}

function setControl(fd: number, command: bigint, value: bigint): void {
  check(fcntl(fd, Number(command), value), "fcntl", `F_${command}`);
}
