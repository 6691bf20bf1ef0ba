/**
 * One generation of the app takes the vsock ports over from the one before: until it is told to serve, its listeners wait,
 * and TCP ports are shared.
 */
import * as net from "node:net";
import { constants } from "node:os";
import { copyDescriptor } from "../../linux/descriptor.ts";
import { SystemError } from "../../linux/ffi.ts";
import { listenStream } from "../../linux/stream.ts";
import { PORT_ANY, type VsockListener, VsockSocket } from "../../linux/vsock.ts";
import type { Listen } from "../../runtime/vsock.ts";

interface Entry {
  readonly open: () => VsockListener;
  readonly onError: ((error: Error) => void) | undefined;
  opened: VsockListener | undefined;
  isReferenced: boolean;
}

export interface HandoverOptions {
  /** The enclave's vsock. */
  readonly listen: Listen;
  /** By port: bound sockets that every generation has. */
  readonly sockets: ReadonlyMap<number, number>;
  /** The app listens for the first time. */
  readonly onFirst: () => void;
}

/** Connects that arrive while it is full are reset at once (vsock(7)). */
const BACKLOG = 4096;

export class Handover {
  readonly #options: HandoverOptions;
  readonly #entries = new Map<number, Entry>();
  #serving = false;

  constructor(options: HandoverOptions) {
    this.#options = options;
  }

  /** As the enclave's, but for the time at which connections begin to come. */
  readonly listen: Listen = (options, onConnection) => {
    const { port, onError } = options;
    // Any free port is nobody's yet.
    if (port === PORT_ANY) return this.#options.listen(options, onConnection);
    // The port of another generation is no obstacle; one of this generation is.
    if (this.#entries.has(port))
      throw new SystemError("bind", constants.errno.EADDRINUSE, `vsock port ${port}`);
    const open = () => this.#open(options, onConnection);
    const entry: Entry = { open, onError, opened: undefined, isReferenced: true };
    if (this.#serving) entry.opened = open();
    this.#entries.set(port, entry);
    if (this.#entries.size === 1) this.#options.onFirst();
    return this.#listener(port, entry);
  };

  /** Open what waits, and from here on at once. */
  serve(): void {
    this.#serving = true;
    for (const entry of this.#entries.values()) {
      try {
        entry.opened = entry.open();
        if (!entry.isReferenced) entry.opened.unref();
      } catch (error) {
        entry.onError?.(error as Error);
      }
    }
  }

  #open(...[options, onConnection]: Parameters<Listen>): VsockListener {
    const { port, backlog = BACKLOG, onError } = options;
    const socket = this.#options.sockets.get(port);
    if (socket === undefined) return this.#options.listen(options, onConnection);
    const streams = { backlog, allowHalfOpen: true, ...(onError && { onError }) };
    // A copy: the app may close its server and listen again.
    const listener = listenStream(copyDescriptor(socket), streams, VsockSocket, onConnection);
    return {
      port,
      close: (callback) => listener.close(callback),
      ref: () => listener.ref(),
      unref: () => listener.unref(),
    };
  }

  /** Let the next generation have the ports. Connections that there are stay. */
  retire(): void {
    for (const { opened } of this.#entries.values()) opened?.close();
    this.#entries.clear();
  }

  #listener(port: number, entry: Entry): VsockListener {
    return {
      port,
      close: (callback) => {
        if (this.#entries.get(port) === entry) this.#entries.delete(port);
        if (entry.opened !== undefined) entry.opened.close(callback);
        else if (callback !== undefined) process.nextTick(callback);
      },
      ref: () => {
        entry.isReferenced = true;
        entry.opened?.ref();
      },
      unref: () => {
        entry.isReferenced = false;
        entry.opened?.unref();
      },
    };
  }
}

/** What `listen` makes of its arguments, in any of their orders (lib/net.js). */
const { _normalizeArgs: normalizeArgs } = net as unknown as {
  _normalizeArgs(args: readonly unknown[]): readonly [Readonly<Record<string, unknown>>, ...unknown[]];
};

/**
 * From here on servers share their TCP port with those of other processes that do so too (SO_REUSEPORT, socket(7)): the
 * generation before has it still.
 */
export function shareTcpPorts(): void {
  const { listen } = net.Server.prototype;
  net.Server.prototype.listen = function (this: net.Server, ...args: unknown[]): net.Server {
    const [options, callback] = normalizeArgs(args);
    const hasPort = typeof options.port === "number" || typeof options.port === "string";
    if (!hasPort) return Reflect.apply(listen, this, args) as net.Server;
    return Reflect.apply(listen, this, [{ ...options, reusePort: true }, callback]) as net.Server;
  } as typeof listen;
}
