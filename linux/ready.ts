/** Waiting for a descriptor to be readable or writable. */
import { watchReadable } from "./event.ts";
import { bind, check } from "./ffi.ts";

const libc = bind({
  epoll_create1: { arguments: ["i32"], return: "i32" },
  epoll_ctl: { arguments: ["i32", "i32", "i32", "buffer"], return: "i32" },
});

/** sys/epoll.h */
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EVENTS = { readable: 1, writable: 4 } as const;

/**
 * Until a descriptor becomes so, fails or hangs up. An epoll descriptor is readable when what it watches is ready, and a
 * readable descriptor is what libuv lets us wait for. Rejects with the signal's reason, or SystemError.
 */
export async function becomes(
  state: keyof typeof EVENTS,
  fd: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const epoll = check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const watcher = watchReadable(epoll, resolve);
  const abort = () => reject(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    // struct epoll_event: u32 events, then data, which nobody reads; 12 bytes on x86_64 and 16 on aarch64.
    const event = new Uint32Array([EVENTS[state], 0, 0, 0]);
    check(libc.epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event), "epoll_ctl");
    await promise;
  } finally {
    signal?.removeEventListener("abort", abort);
    watcher.close();
  }
}
