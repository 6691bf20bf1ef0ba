/**
 * One generation of the app takes the vsock ports over from the one before: until it is told to serve, its listeners wait,
 * and TCP ports are shared.
 */
import * as net from "node:net";
import { constants } from "node:os";
import { SystemError } from "../../linux/ffi.ts";
import { PORT_ANY, type VsockListener } from "../../linux/vsock.ts";
import type { Listen } from "../../runtime/vsock.ts";

interface Entry {
  readonly open: () => VsockListener;
  readonly onError: ((error: Error) => void) | undefined;
  opened: VsockListener | undefined;
  isReferenced: boolean;
}

export class Handover {
  readonly #listen: Listen;
  readonly #onFirst: () => void;
  readonly #entries = new Map<number, Entry>();
  #serving = false;

  /** `onFirst`: the app listens for the first time. */
  constructor(listen: Listen, onFirst: () => void) {
    this.#listen = listen;
    this.#onFirst = onFirst;
  }

  /** As the enclave's, but for the time at which connections begin to come. */
  readonly listen: Listen = (options, onConnection) => {
    const { port, onError } = options;
    // Any free port is nobody's yet.
    if (port === PORT_ANY) return this.#listen(options, onConnection);
    // The port of another generation is no obstacle; one of this generation is.
    if (this.#entries.has(port))
      throw new SystemError("bind", constants.errno.EADDRINUSE, `vsock port ${port}`);
    const open = () => this.#listen(options, onConnection);
    const entry: Entry = { open, onError, opened: undefined, isReferenced: true };
    if (this.#serving) entry.opened = open();
    this.#entries.set(port, entry);
    if (this.#entries.size === 1) this.#onFirst();
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
