/** The accepting side of the PROXY protocol: a connection shows its client's address, as the parent tells it. */
import type { Socket } from "node:net";
import { decodeProxyHeader, PROXY_PREFIX_SIZE, type ProxyAddress, proxyHeaderRest } from "../format/proxy.ts";
import { concat } from "../format/struct.ts";
import type { Listen, VsockSocket } from "./vsock.ts";

/** A relay sends the header at once, whatever its client does. */
const DEADLINE_MS = 5_000;
/** Refusals are told once in this time: who makes them must not push the app's lines out of the log. */
const SAY_MS = 1_000;

/**
 * `listen`, with connections that are handed over behind their header: the next byte is the app's own. One that begins
 * otherwise, or not within 5 s, is closed. `say`: a line for the log.
 */
export function expectHeaders(listen: Listen, say: (line: string) => void, deadlineMs = DEADLINE_MS): Listen {
  let [saidAt, unsaid] = [Number.NEGATIVE_INFINITY, 0];
  const refuse = (port: number, reason: string) => {
    unsaid++;
    const now = performance.now();
    if (now - saidAt < SAY_MS) return;
    say(`vsock port ${port}: ${reason}${unsaid > 1 ? ` (and ${unsaid - 1} before)` : ""}`);
    [saidAt, unsaid] = [now, 0];
  };
  return (options, onConnection) =>
    listen(options, (socket) => {
      new Introduction(socket, deadlineMs, (reason) => {
        if (reason === undefined) onConnection(socket);
        else refuse(options.port, reason);
      });
    });
}

/** One connection until its header is read. */
class Introduction {
  readonly #socket: VsockSocket;
  readonly #done: (reason?: string) => void;
  readonly #timer: NodeJS.Timeout;
  #prefix: Uint8Array | undefined;

  /** `done`: once, within a turn in which the socket has read the header and nothing more; `reason`: it is refused. */
  constructor(socket: VsockSocket, deadlineMs: number, done: (reason?: string) => void) {
    this.#socket = socket;
    this.#done = done;
    this.#timer = setTimeout(() => this.#refuse(`no PROXY header within ${deadlineMs / 1000} s`), deadlineMs);
    socket.on("readable", this.#onReadable).on("error", ignore).on("close", this.#onClose);
  }

  readonly #onClose = () => this.#finish("closed before its PROXY header");

  readonly #onReadable = () => {
    try {
      this.#prefix ??= this.#read(PROXY_PREFIX_SIZE);
      if (this.#prefix === undefined) return;
      const length = proxyHeaderRest(this.#prefix);
      const rest = length === 0 ? new Uint8Array() : this.#read(length);
      if (rest === undefined) return;
      const header = decodeProxyHeader(concat([this.#prefix, rest]));
      if (header !== undefined) showAddresses(this.#socket, header.source, header.destination);
      this.#finish();
    } catch (error) {
      this.#refuse((error as Error).message);
    }
  };

  /** Exactly so many bytes. */
  #read(length: number): Uint8Array | undefined {
    const bytes: Buffer | null = this.#socket.read(length);
    if (bytes === null || bytes.length === length) return bytes ?? undefined;
    // At the end a stream gives what is left.
    this.#socket.destroy();
    return undefined;
  }

  #refuse(reason: string): void {
    this.#finish(reason);
    this.#socket.on("error", ignore);
    this.#socket.destroy();
  }

  #finish(reason?: string): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    socket.off("readable", this.#onReadable).off("error", ignore).off("close", this.#onClose);
    this.#done(reason);
    // Until the next turn the stream takes the app's listener for one that it had already, and does not tell it what waits.
    const isAwaited = socket.readableLength > 0 && socket.listenerCount("readable") > 0;
    if (isAwaited) process.nextTick(() => socket.emit("readable"));
  }
}

function ignore(): void {}

/** What libuv's TCP handles have, and lib/net.js asks (of TLS and HTTP/2 above it too). */
interface NamedHandle {
  getpeername(out: object): number;
  getsockname(out: object): number;
}

function showAddresses(socket: Socket, source: ProxyAddress, destination: ProxyAddress): void {
  const { _handle: handle } = socket as unknown as { _handle: NamedHandle | null };
  // Destroyed meanwhile.
  if (handle === null) return;
  handle.getpeername = naming(source);
  handle.getsockname = naming(destination);
  // A vsock stream has its peer's vsock port there.
  Object.defineProperty(socket, "remotePort", { value: source.port, configurable: true });
}

function naming({ address, port }: ProxyAddress): (out: object) => number {
  const family = address.includes(":") ? "IPv6" : "IPv4";
  return (out) => {
    Object.assign(out, { address, port, family });
    return 0;
  };
}
