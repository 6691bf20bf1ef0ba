/**
 * AF_VSOCK for the command, as a parent instance has it (CID 3). Its sockets are AF_UNIX ones that the emulator made, so
 * that reading, writing and polling are the kernel's own; what names addresses is answered here, and each connection
 * is relayed to the enclave's vsock device.
 */

import { constants } from "node:os";
import { CID_ANY, CID_PARENT } from "../../format/abi.ts";
import type { VsockStream } from "../../launcher/device.ts";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { SystemError } from "../../linux/ffi.ts";
import { identify } from "../../linux/peer.ts";
import * as unix from "../../linux/unix.ts";
import { PORT_ANY, type VsockAddress } from "../../linux/vsock.ts";
import type { EmulatedParentVsock } from "../parent.ts";
import { failure, readAddress, writeAddress, writeSized } from "./address.ts";
import type { Call } from "./call.ts";
import { AF_VSOCK, SO_DOMAIN, SOL_SOCKET } from "./filter.ts";
import { meet, relay, withCopy } from "./relay.ts";

const { errno } = constants;
const SOCK_STREAM = 1;
const SOCK_TYPE_MASK = 0xf;
/** linux/vm_sockets.h; the later number is the one with a 64-bit time. */
const SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD = 6;
const SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW = 8;
/** Where PORT_ANY begins to look. */
const FIRST_FREE_PORT = 0x8000;
const UNBOUND: VsockAddress = { cid: CID_ANY, port: PORT_ANY };

interface Listener {
  readonly port: number;
  /** Of the AF_UNIX socket. */
  readonly address: Uint8Array;
  /** In the order in which the kernel hands them out. */
  readonly arrivals: VsockAddress[];
  /** Calls of accept that wait. */
  readonly waiting: Set<{ readonly call: Call; readonly flags: number }>;
  /** On the parent's port, from listen(2) on. */
  share: { close(): void } | undefined;
}

interface VsockEnd {
  local: VsockAddress;
  remote: VsockAddress | undefined;
  listener: Listener | undefined;
  connectTimeoutMs: number | undefined;
}

export class Sockets {
  readonly #vsock: EmulatedParentVsock;
  /** What each AF_VSOCK socket of the command is, by the identity of its AF_UNIX socket. */
  readonly #ends = new Map<string, VsockEnd>();
  readonly #ports = new Map<number, Listener>();
  #nextPort = FIRST_FREE_PORT;

  constructor(vsock: EmulatedParentVsock) {
    this.#vsock = vsock;
  }

  /** socket(AF_VSOCK, …): the filter lets no other family through. */
  socket(call: Call): void {
    const type = call.int(1);
    if ((type & SOCK_TYPE_MASK) !== SOCK_STREAM) {
      call.fail(errno.EPROTOTYPE);
      return;
    }
    this.#give(call, unix.openUnix((type & unix.SOCK_NONBLOCK) | unix.SOCK_CLOEXEC), type, {});
  }

  /** Hand a socket to the command and forget it here. False where nobody waits for it any more. */
  #give(call: Call, fd: number, flags: number, end: Partial<VsockEnd>): boolean {
    const identity = identify("self", fd);
    try {
      if (!call.give(fd, flags & unix.SOCK_CLOEXEC)) return false;
      this.#ends.set(identity, {
        local: UNBOUND,
        remote: undefined,
        listener: undefined,
        connectTimeoutMs: undefined,
        ...end,
      });
      return true;
    } finally {
      closeDescriptor(fd);
    }
  }

  #find(call: Call): VsockEnd | undefined {
    const identity = call.identify(0);
    return identity === undefined ? undefined : this.#ends.get(identity);
  }

  bind(call: Call): void {
    const end = this.#find(call);
    if (end === undefined) {
      call.proceed();
      return;
    }
    const { cid, port: wanted } = readAddress(call);
    if (end.listener !== undefined || end.remote !== undefined) throw failure("bind", errno.EINVAL);
    if (cid !== CID_ANY && cid !== CID_PARENT) throw failure("bind", errno.EADDRNOTAVAIL);
    const port = wanted === PORT_ANY ? this.#freePort() : wanted;
    if (!this.#isFree(port)) throw failure("bind", errno.EADDRINUSE);
    const address = withCopy(call, unix.bindUnix);
    end.local = { cid, port };
    end.listener = { port, address, arrivals: [], waiting: new Set(), share: undefined };
    this.#ports.set(port, end.listener);
    call.succeed();
  }

  #freePort(): number {
    while (!this.#isFree(this.#nextPort)) this.#nextPort++;
    return this.#nextPort++;
  }

  /** A socket that was closed told nobody: whether it lives is asked when its port is wanted. */
  #isFree(port: number): boolean {
    const listener = this.#ports.get(port);
    if (listener !== undefined && unix.isBound(listener.address)) return false;
    if (listener !== undefined) this.#drop(listener);
    return true;
  }

  #drop(listener: Listener): void {
    listener.share?.close();
    this.#ports.delete(listener.port);
  }

  /** The kernel listens on the AF_UNIX socket; the enclaves' connections go there from here on. */
  listen(call: Call): void {
    const listener = this.#find(call)?.listener;
    if (listener !== undefined && listener.share === undefined) {
      listener.share = this.#vsock.listen(listener.port, (stream) => this.#arrive(listener, stream));
    }
    call.proceed();
  }

  #arrive(listener: Listener, stream: VsockStream): void {
    let client = -1;
    try {
      client = unix.openUnix();
      unix.connectUnix(client, listener.address);
      relay(client, stream);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      closeDescriptor(client);
      stream.destroy();
      // It was closed since. EAGAIN: its backlog is full. EMFILE: we have no descriptors left.
      if (error.code === "ECONNREFUSED") this.#drop(listener);
      return;
    }
    listener.arrivals.push({ cid: stream.remoteCid, port: stream.remotePort });
    for (const waiter of listener.waiting) {
      listener.waiting.delete(waiter);
      if (this.#tryAccept(waiter.call, listener, waiter.flags)) return;
    }
  }

  /** accept(2), accept4(2). */
  accept(call: Call, flags: number): void {
    const end = this.#find(call);
    if (end === undefined) {
      call.proceed();
      return;
    }
    const { listener } = end;
    if (listener?.share === undefined) throw failure("accept", errno.EINVAL);
    if (this.#tryAccept(call, listener, flags)) return;
    if (withCopy(call, unix.isNonBlocking)) throw failure("accept", errno.EAGAIN);
    for (const waiter of listener.waiting) if (!waiter.call.isWaiting) listener.waiting.delete(waiter);
    listener.waiting.add({ call, flags });
  }

  /** False where no connection waits, or nobody for it. */
  #tryAccept(call: Call, listener: Listener, flags: number): boolean {
    if (!call.isWaiting) return false;
    const fd = withCopy(call, (copy) =>
      unix.hasConnection(copy) ? unix.acceptUnix(copy, flags & unix.SOCK_NONBLOCK) : undefined,
    );
    if (fd === undefined) return false;
    const remote = listener.arrivals.shift() ?? UNBOUND;
    if (call.word(1) !== 0n) writeAddress(call, remote);
    this.#give(call, fd, flags, { local: { cid: CID_PARENT, port: listener.port }, remote });
    return true;
  }

  async connect(call: Call): Promise<void> {
    const end = this.#find(call);
    if (end === undefined) {
      call.proceed();
      return;
    }
    if (end.remote !== undefined) throw failure("connect", errno.EISCONN);
    const remote = readAddress(call);
    const { connectTimeoutMs: timeoutMs } = end;
    const stream = await this.#vsock.connect(
      remote.cid,
      remote.port,
      timeoutMs === undefined ? {} : { timeoutMs },
    );
    if (!call.isWaiting) {
      stream.destroy();
      return;
    }
    relay(withCopy(call, meet), stream);
    end.local = { cid: CID_PARENT, port: this.#nextPort++ };
    end.remote = remote;
    call.succeed();
  }

  getsockname(call: Call): void {
    const end = this.#find(call);
    if (end === undefined) {
      call.proceed();
      return;
    }
    writeAddress(call, end.local);
    call.succeed();
  }

  getpeername(call: Call): void {
    const end = this.#find(call);
    if (end === undefined) {
      call.proceed();
      return;
    }
    if (end.remote === undefined) throw failure("getpeername", errno.ENOTCONN);
    writeAddress(call, end.remote);
    call.succeed();
  }

  /** setsockopt(fd, AF_VSOCK, …): buffer sizes are taken and have no effect. */
  setsockopt(call: Call): void {
    const end = this.#find(call);
    if (end === undefined) {
      call.proceed();
      return;
    }
    const option = call.int(2);
    if (option === SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD || option === SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW) {
      // struct timeval: seconds i64, microseconds i64.
      const timeval = new BigInt64Array(call.read(call.word(3), 16).buffer);
      end.connectTimeoutMs = Number(timeval[0]) * 1000 + Math.ceil(Number(timeval[1]) / 1000);
    }
    call.succeed();
  }

  /** getsockopt of SO_DOMAIN, or at level AF_VSOCK. */
  getsockopt(call: Call): void {
    if (this.#find(call) === undefined) {
      call.proceed();
      return;
    }
    if (call.int(1) !== SOL_SOCKET || call.int(2) !== SO_DOMAIN)
      throw failure("getsockopt", errno.ENOPROTOOPT);
    writeSized(call, 3, 4, new Uint8Array(new Uint32Array([AF_VSOCK]).buffer));
    call.succeed();
  }
}
