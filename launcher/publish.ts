/** Published ports: clients of the parent relayed to a vsock port of the enclave. */
import { createServer, type Server, type Socket } from "node:net";
import { closeDescriptor, copyDescriptor } from "../linux/descriptor.ts";
import { Relay } from "../linux/relay.ts";
import { descriptorOf } from "../linux/stream.ts";
import type { VsockStream } from "./device.ts";
import { type Bound, listenAt, type Place } from "./listener.ts";
import { quota, type Share } from "./quota.ts";
import { headerFor, relayStreams, reset } from "./relay.ts";
import { type Traffic, TrafficCounter } from "./traffic.ts";

export type Publish = Place & {
  readonly vsockPort: number;
  /** Tell the app who connects, by a PROXY protocol v2 header. Default: if the image was built to expect it. */
  readonly proxyProtocol?: boolean;
  /** Why clients were turned away: a line. */
  readonly onRefusal?: (reason: string) => void;
};

export interface Published extends Bound {
  readonly vsockPort: number;
}

/** A way to the enclave: a stream, or a connected descriptor, non-blocking, which is the caller's. */
export type Connect = (port: number) => Promise<VsockStream | number>;

/** A vanished client is noticed after this time, and 10 probes of a second each. Milliseconds. */
const KEEP_ALIVE_MS = 60_000;

export interface Publisher extends Published {
  /** Connections are relayed from here on, those that wait first. */
  start(connect: Connect): void;
  /** No more connections; those there are get reset. */
  close(): void;
  traffic(): Traffic;
}

/**
 * Listen. A connection that comes before `start` waits: who starts an enclave and connects at once gets an answer, not
 * a refusal. Rejects as `listenAt`.
 */
export async function publishPort({
  vsockPort,
  proxyProtocol = false,
  onRefusal = () => {},
  ...place
}: Publish): Promise<Publisher> {
  const publishing = new Publishing(vsockPort, proxyProtocol, onRefusal);
  const bound = await listenAt(publishing.server, place);
  return {
    ...bound,
    vsockPort,
    start: (connect) => publishing.start(connect),
    close: () => publishing.close(),
    traffic: () => publishing.traffic(),
  };
}

/** The ports of a later start: a free port that was found stays the same one. */
export function again(wanted: readonly Publish[], published: readonly Published[]): readonly Publish[] {
  return wanted.map((publish, index) =>
    "port" in publish ? { ...publish, port: published[index]?.port ?? publish.port } : publish,
  );
}

class Publishing {
  readonly server: Server;
  readonly #vsockPort: number;
  readonly #hasHeader: boolean;
  readonly #onRefusal: (reason: string) => void;
  readonly #share: Share;
  readonly #sockets = new Set<Socket>();
  readonly #counter = new TrafficCounter();
  #waiting: Socket[] = [];
  #connect: Connect | undefined;
  /** Made for the first connection that comes as a descriptor. */
  #relay: Relay | undefined;

  constructor(vsockPort: number, hasHeader: boolean, onRefusal: (reason: string) => void) {
    this.#vsockPort = vsockPort;
    this.#hasHeader = hasHeader;
    this.#onRefusal = onRefusal;
    this.#share = quota.share(() => ({
      beingSetUp: this.#sockets.size,
      relayed: this.#relay?.size ?? 0,
    }));
    const options = {
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    };
    this.server = createServer(options, (socket) => this.#accept(socket));
  }

  start(connect: Connect): void {
    this.#connect = connect;
    for (const socket of this.#waiting.splice(0)) void this.#serve(socket, connect);
  }

  close(): void {
    this.server.close();
    this.#share.close();
    for (const socket of this.#sockets) reset(socket);
    this.#relay?.close();
  }

  traffic(): Traffic {
    const streams = this.#counter.read();
    const { size = 0, bytesIn = 0, bytesOut = 0 } = this.#relay ?? {};
    return {
      ...streams,
      open: streams.open + size,
      bytesIn: streams.bytesIn + bytesIn,
      bytesOut: streams.bytesOut + bytesOut,
    };
  }

  #accept(socket: Socket): void {
    const port = this.#vsockPort;
    if (!this.#share.admits((reason) => this.#onRefusal(`published port ${port}: ${reason}`))) {
      this.#counter.refuse();
      socket.on("error", () => {});
      reset(socket);
      return;
    }
    this.#sockets.add(socket);
    this.#counter.follow(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // The relay hears of the end by "close".
    socket.on("error", () => {});
    if (this.#connect === undefined) this.#waiting.push(socket);
    else void this.#serve(socket, this.#connect);
  }

  /** Relay once the enclave answers. */
  async #serve(socket: Socket, connect: Connect): Promise<void> {
    const head = this.#hasHeader ? headerFor(socket) : undefined;
    let target: VsockStream | number;
    try {
      target = await connect(this.#vsockPort);
    } catch {
      // ECONNRESET (nothing listens) or ETIMEDOUT in the enclave: the client sees its connection reset.
      this.#counter.refuse();
      reset(socket);
      return;
    }
    if (typeof target === "number") {
      this.#relayDescriptor(socket, target, head);
    } else {
      if (head !== undefined) target.write(head);
      relayStreams(socket, target);
    }
  }

  #relayDescriptor(socket: Socket, enclave: number, head: Uint8Array | undefined): void {
    const descriptors = [enclave];
    try {
      // EBADF where the client or this port is gone meanwhile. Paused since it was accepted: no byte has been read.
      const client = copyDescriptor(descriptorOf(socket));
      descriptors.push(client);
      this.#relay ??= new Relay();
      this.#relay.join(client, enclave, head);
      // The relay has a number of its own for the connection.
      socket.destroy();
    } catch {
      // EMFILE, ENOSPC: this machine is full.
      for (const fd of descriptors) closeDescriptor(fd);
      this.#counter.refuse();
      reset(socket);
    }
  }
}
