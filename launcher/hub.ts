/**
 * A vsock port of the parent that launchers of several processes listen on at once, though the kernel gives it to one
 * socket: the heartbeat's port is one for the machine. One process, the hub, accepts; the others tell it by a Unix
 * socket which CIDs are theirs, and get those connections' descriptors.
 *
 * Everyone holds a copy of the listening descriptor: when the hub ends, however it ends, the port stays open, connections
 * wait in its backlog, and who gets the hub's abstract name goes on accepting. The name has the inode of /dev/vsock in it:
 * processes that do not share the device do not share its ports. Only processes of the same user, or root's, are served.
 */
import { statSync } from "node:fs";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { closeDescriptor, copyDescriptor } from "../linux/descriptor.ts";
import { type Watcher, watchReadable } from "../linux/event.ts";
import { SystemError } from "../linux/ffi.ts";
import { type Accepted, acceptConnection, openConnection, openListener } from "../linux/listener.ts";
import { receiveMessage, sendMessage } from "../linux/message.ts";
import * as unix from "../linux/unix.ts";
import type { SharedListener, VsockStream } from "./device.ts";

/** A message: what, then the CID; u32 each. */
const MESSAGE_BYTES = 8;
const OPERATION = { listener: 0, claim: 1, release: 2, connection: 3 } as const;
type Operation = (typeof OPERATION)[keyof typeof OPERATION];

/** Connections that nobody claimed yet, and how many of one CID; more are reset. */
const WAITING_MAX = 256;
const WAITING_PER_CID_MAX = 8;
const BACKLOG = 64;
/** While another program has the port (nitro-cli, for as long as it starts an enclave) we ask again this often. */
const RETRY_MS = 100;

type OnConnection = (stream: VsockStream) => void;

/** Join the port. Rejects with SystemError EADDRINUSE where another program keeps it for `patienceMs`. */
export async function joinPort(
  port: number,
  onConnection: OnConnection,
  patienceMs: number,
): Promise<SharedListener> {
  const member = new Member(port, onConnection);
  const end = performance.now() + patienceMs;
  for (;;) {
    const error = await member.join();
    if (error === undefined) return member;
    if (performance.now() >= end) throw error;
    await sleep(RETRY_MS);
  }
}

/** Another process, as the hub knows it. */
interface Peer {
  readonly socket: number;
  readonly watcher: Watcher;
  readonly cids: Set<number>;
}

class Member implements SharedListener {
  readonly #port: number;
  readonly #onConnection: OnConnection;
  readonly #claims = new Set<number>();
  #waiting: Accepted[] = [];
  /** The port's listening descriptor, once there is one. */
  #listener: number | undefined;
  /** What this process is: the hub with its peers, or a peer with its hub; closed when that changes. */
  #role: Disposable | undefined;
  readonly #peers = new Set<Peer>();
  #hub: number | undefined;
  #isClosed = false;

  constructor(port: number, onConnection: OnConnection) {
    this.#port = port;
    this.#onConnection = onConnection;
  }

  get #address(): Uint8Array {
    return unix.abstractAddress(`cloister/vsock/${deviceKey()}/${this.#port}`);
  }

  /** Undefined when it is done; what stood against it where it is worth another try. Throws SystemError. */
  async join(): Promise<SystemError | undefined> {
    try {
      this.#listener ??= openListener(this.#port);
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== "EADDRINUSE") throw error;
      return (await this.#follow()) ? undefined : error;
    }
    // With its name taken by a stranger it serves this process alone.
    this.#lead(this.#takeName());
    return undefined;
  }

  claim(cid: number): void {
    this.#claims.add(cid);
    this.#tell(OPERATION.claim, cid);
    this.#deliverWaiting();
  }

  release(cid: number): void {
    this.#claims.delete(cid);
    this.#tell(OPERATION.release, cid);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Whoever is the hub next finds them there, should they be its own.
    const [heir] = this.#peers;
    for (const { fd, cid } of this.#waiting.splice(0)) {
      if (heir !== undefined) send(heir.socket, OPERATION.connection, cid, fd);
      closeDescriptor(fd);
    }
    this.#role?.[Symbol.dispose]();
    if (this.#listener !== undefined) closeDescriptor(this.#listener);
  }

  /** The hub's listening socket; undefined where another has the name. */
  #takeName(): number | undefined {
    const socket = unix.openUnix(undefined, unix.SOCK_SEQPACKET);
    if (unix.claimAddress(socket, this.#address, BACKLOG)) return socket;
    closeDescriptor(socket);
    return undefined;
  }

  /** Be the hub. */
  #lead(server: number | undefined): void {
    const listener = this.#listener ?? -1;
    const stack = new DisposableStack();
    this.#role = stack;
    stack.defer(() => {
      for (const peer of this.#peers) this.#drop(peer);
    });
    if (server !== undefined) {
      const watcher = watchReadable(server, () => this.#admit(server));
      stack.defer(() => watcher.close());
    }
    // The watcher closes what it watches, and the listener outlives this role.
    const watcher = watchReadable(copyDescriptor(listener), () => this.#accept(listener));
    stack.defer(() => watcher.close());
    this.#deliverWaiting();
  }

  #accept(listener: number): void {
    const accepted = acceptConnection(listener);
    if (accepted !== undefined) this.#deliver(accepted);
  }

  #admit(server: number): void {
    const socket = unix.acceptUnix(server);
    if (!isTrusted(socket) || this.#listener === undefined) {
      closeDescriptor(socket);
      return;
    }
    const cids = new Set<number>();
    const watcher = watchReadable(socket, () => this.#hear(peer));
    const peer: Peer = { socket, watcher, cids };
    this.#peers.add(peer);
    send(socket, OPERATION.listener, 0, this.#listener);
  }

  #hear(peer: Peer): void {
    const message = receive(peer.socket);
    if (message === undefined) return;
    for (const fd of message.descriptors) closeDescriptor(fd);
    if (message.operation === OPERATION.claim) {
      peer.cids.add(message.cid);
      this.#deliverWaiting();
    } else if (message.operation === OPERATION.release) peer.cids.delete(message.cid);
    else this.#drop(peer);
  }

  #drop(peer: Peer): void {
    peer.watcher.close();
    this.#peers.delete(peer);
  }

  /** Be a peer of the hub. False where there is none, or it is no process of ours. */
  async #follow(): Promise<boolean> {
    const socket = unix.openUnix(undefined, unix.SOCK_SEQPACKET);
    try {
      unix.connectUnix(socket, this.#address);
      if (!isTrusted(socket)) throw new SystemError("connect", constants.errno.EACCES, "another user's");
    } catch (error) {
      closeDescriptor(socket);
      // ECONNREFUSED: nobody has the name. EACCES: a stranger. EAGAIN: the hub is busy. Worth another try, all of them.
      if (error instanceof SystemError) return false;
      throw error;
    }
    const { promise: joined, resolve } = Promise.withResolvers<boolean>();
    const watcher = watchReadable(socket, () => {
      const message = receive(socket);
      if (message === undefined) return;
      const [fd] = message.descriptors;
      if (message.operation === OPERATION.listener && fd !== undefined) {
        if (this.#listener !== undefined) closeDescriptor(this.#listener);
        this.#listener = fd;
        this.#hub = socket;
        for (const cid of this.#claims) this.#tell(OPERATION.claim, cid);
        resolve(true);
      } else if (message.operation === OPERATION.connection && fd !== undefined) {
        this.#deliver({ fd, cid: message.cid });
      } else {
        watcher.close();
        this.#hub = undefined;
        resolve(false);
        if (!this.#isClosed && this.#listener !== undefined) void this.#succeed();
      }
    });
    this.#role = { [Symbol.dispose]: () => watcher.close() };
    return joined;
  }

  /** The hub is gone: be it, or follow the new one. */
  async #succeed(): Promise<void> {
    while (!this.#isClosed) {
      const server = this.#takeName();
      if (server !== undefined) {
        this.#lead(server);
        return;
      }
      if (await this.#follow()) return;
      await sleep(RETRY_MS);
    }
  }

  #tell(operation: Operation, cid: number): void {
    if (this.#hub !== undefined) send(this.#hub, operation, cid);
  }

  /** To whoever claimed the CID; where nobody did, it waits unread. */
  #deliver(accepted: Accepted): void {
    const { fd, cid } = accepted;
    const peer = [...this.#peers].find(({ cids }) => cids.has(cid));
    if (this.#claims.has(cid)) this.#onConnection(openConnection(fd));
    else if (peer !== undefined) {
      send(peer.socket, OPERATION.connection, cid, fd);
      closeDescriptor(fd);
    } else if (
      this.#waiting.length < WAITING_MAX &&
      this.#waiting.filter((other) => other.cid === cid).length < WAITING_PER_CID_MAX
    ) {
      this.#waiting.push(accepted);
    } else closeDescriptor(fd);
  }

  #deliverWaiting(): void {
    for (const accepted of this.#waiting.splice(0)) this.#deliver(accepted);
  }
}

/** Whose vsock ports these are. */
function deviceKey(): string {
  const stats = statSync("/dev/vsock", { throwIfNoEntry: false });
  return stats === undefined ? "none" : `${stats.dev}:${stats.ino}`;
}

function isTrusted(socket: number): boolean {
  const user = unix.peerUser(socket);
  return user === 0 || user === process.getuid?.();
}

function send(socket: number, operation: Operation, cid: number, descriptor?: number): void {
  const bytes = new Uint8Array(new Uint32Array([operation, cid]).buffer);
  try {
    // A peer that reads nothing loses the message, as one that died does; its end is heard of elsewhere.
    sendMessage(socket, bytes, descriptor === undefined ? [] : [descriptor]);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  }
}

interface Message {
  /** Undefined: the other end is gone. */
  readonly operation: Operation | undefined;
  readonly cid: number;
  readonly descriptors: readonly number[];
}

/** Undefined where there is nothing yet. */
function receive(socket: number): Message | undefined {
  const words = new Uint32Array(MESSAGE_BYTES / 4);
  try {
    const message = receiveMessage(socket, new Uint8Array(words.buffer));
    if (message === undefined) return undefined;
    const [operation = 0, cid = 0] = words;
    const isWhole = message.bytes === MESSAGE_BYTES;
    return {
      operation: isWhole ? (operation as Operation) : undefined,
      cid,
      descriptors: message.descriptors,
    };
  } catch (error) {
    if (error instanceof SystemError) return { operation: undefined, cid: 0, descriptors: [] };
    throw error;
  }
}
