/** Processes: prctl(2), waitid(2), getppid(2), signal(2). */
import { constants } from "node:os";
import { bind, check, errno } from "./ffi.ts";

const libc = bind({
  prctl: { arguments: ["i32", "u64", "u64", "u64", "u64"], return: "i32" },
  waitid: { arguments: ["i32", "i32", "buffer", "i32"], return: "i32" },
  getppid: { arguments: [], return: "i32" },
  signal: { arguments: ["i32", "u64"], return: "u64" },
});

/** linux/prctl.h */
const PR_SET_PDEATHSIG = 1;
const PR_SET_CHILD_SUBREAPER = 36;

/**
 * Have the kernel send `signal` to this process when the thread that started it dies, even by SIGKILL. `parent` is
 * the pid of the process that should be it: where that one is gone already, the signal comes at once.
 */
export function dieWithParent(signal: NodeJS.Signals, parent: number): void {
  check(
    libc.prctl(PR_SET_PDEATHSIG, BigInt(constants.signals[signal]), 0n, 0n, 0n),
    "prctl(PR_SET_PDEATHSIG)",
  );
  // prctl(2): a parent that died before the call is never reported.
  if (libc.getppid() !== parent) process.kill(process.pid, signal);
}

/** Be the parent of this process's orphaned descendants from here on; it must reap them. */
export function adoptOrphans(): void {
  check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n), "prctl(PR_SET_CHILD_SUBREAPER)");
}

/** Give a signal its default action back. */
export function resetSignal(signal: NodeJS.Signals): void {
  // SIG_DFL is 0; SIG_ERR, -1, comes for numbers that are no signals.
  libc.signal(constants.signals[signal], 0n);
}

/** linux/wait.h */
const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 0x1;
const WEXITED = 0x4;
const WNOWAIT = 0x0100_0000;
/** Only children of the calling thread: orphans become the main thread's, what other threads started is theirs. */
const WNOTHREAD = 0x2000_0000;

/** siginfo_t of SIGCHLD on 64-bit Linux (asm-generic/siginfo.h): si_signo, si_errno, si_code, pad, then si_pid at 16. */
const SIGINFO_BYTES = 128;
const SI_PID_OFFSET = 16;

/** Pid of a child of this thread that ended and waits to be reaped, left as it is; undefined where there is none. */
export function findEndedChild(): number | undefined {
  return waitId(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT | WNOTHREAD);
}

/** Reap one child by pid; false where it has not ended or is not ours. */
export function reapChild(pid: number): boolean {
  return waitId(P_PID, pid, WEXITED | WNOHANG | WNOTHREAD) !== undefined;
}

function waitId(type: number, id: number, options: number): number | undefined {
  const info = new Int32Array(SIGINFO_BYTES / 4);
  const result = libc.waitid(type, id, info, options);
  // No children at all, or not this one: nothing to reap.
  if (result < 0 && errno() === constants.errno.ECHILD) return undefined;
  check(result, "waitid");
  const pid = info[SI_PID_OFFSET / 4] ?? 0;
  return pid === 0 ? undefined : pid;
}
