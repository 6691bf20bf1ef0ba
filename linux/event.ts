/** Waking up: eventfd(2), and the readiness of any descriptor as a callback of the event loop. */
import { constants } from "node:os";
import { bind, check, errno, SystemError } from "./ffi.ts";

const libc = bind({
  eventfd: { arguments: ["u32", "i32"], return: "i32" },
  read: { arguments: ["i32", "buffer", "u64"], return: "i64" },
  eventfd_write: { arguments: ["i32", "u64"], return: "i32" },
  epoll_create1: { arguments: ["i32"], return: "i32" },
  epoll_ctl: { arguments: ["i32", "i32", "i32", "buffer"], return: "i32" },
});

/** eventfd(2): EFD_CLOEXEC, EFD_NONBLOCK. */
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/** An eventfd with count 0, non-blocking, close-on-exec. */
export function createEvent(): number {
  return check(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
}

/** Add 1 to an eventfd's count. */
export function signalEvent(fd: number): void {
  if (libc.eventfd_write(fd, 1n) === 0) return;
  // EAGAIN: the count is at its maximum, so the reader has a signal waiting already.
  if (errno() !== constants.errno.EAGAIN) throw new SystemError("eventfd_write", errno(), String(fd));
}

const counter = new BigUint64Array(1);

/** Take an eventfd's whole count; 0n where there is none. */
export function takeEvent(fd: number): bigint {
  if (libc.read(fd, counter, 8n) === 8n) return counter[0] ?? 0n;
  // EAGAIN: the count is 0; someone else took it.
  if (errno() !== constants.errno.EAGAIN) throw new SystemError("read", errno(), `eventfd ${fd}`);
  return 0n;
}

interface PipeHandle {
  open(fd: number): number;
  useUserBuffer(buffer: Uint8Array): void;
  readStart(): number;
  close(): void;
  ref(): void;
  unref(): void;
  onread: () => void;
}

interface PipeBinding {
  readonly Pipe: new (type: number) => PipeHandle;
  readonly constants: { readonly SOCKET: number };
}

const { Pipe, constants: pipeConstants } = (
  process as unknown as { binding(name: "pipe_wrap"): PipeBinding }
).binding("pipe_wrap");

export interface Watcher {
  /** Stop, and close the descriptor. Idempotent. */
  close(): void;
  ref(): void;
  unref(): void;
}

/**
 * Call back whenever `fd` (eventfd, socket, pipe) is readable or hung up; the callback takes what there is, or it is
 * called again. Owns the descriptor, which becomes non-blocking.
 *
 * libuv has this as uv_poll_t, which Node keeps to itself. But a stream whose read buffer is empty does the same: libuv
 * reports UV_ENOBUFS in place of reading (libuv's docs, uv_alloc_cb), and polls on.
 */
export function watchReadable(fd: number, onReadable: () => void): Watcher {
  const handle = new Pipe(pipeConstants.SOCKET);
  const status = handle.open(fd);
  if (status < 0) {
    handle.close();
    throw new SystemError("uv_pipe_open", -status, String(fd));
  }
  let open = true;
  handle.useUserBuffer(new Uint8Array(0));
  handle.onread = () => onReadable();
  handle.readStart();
  return {
    close() {
      if (open) handle.close();
      open = false;
    },
    ref: () => handle.ref(),
    unref: () => handle.unref(),
  };
}

/** sys/epoll.h */
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;

/**
 * Call back once when `fd` fails or hangs up (EPOLLERR, EPOLLHUP), never for bytes: the write end of a pipe whose readers
 * are gone. The descriptor stays the caller's; close the watcher first. Throws SystemError.
 */
export function watchFailure(fd: number, onFailure: () => void): Watcher {
  const epoll = check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  // An epoll descriptor is readable when what it watches has something to say.
  const watcher = watchReadable(epoll, () => {
    watcher.close();
    onFailure();
  });
  // struct epoll_event: u32 events, of which the two above need not be asked for, then data, which nobody reads.
  const event = new Uint32Array(4);
  try {
    check(libc.epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event), "epoll_ctl");
  } catch (error) {
    watcher.close();
    throw error;
  }
  return watcher;
}
