/**
 * A TCP handle whose connection is a stream that the parent's proxy connected: the handle connects to a port of this
 * process's own, behind which the bytes go to the stream and back.
 */
import { createServer, type Server, type Socket } from "node:net";
import { constants } from "node:os";
import { relayStreams } from "../../../launcher/relay.ts";
import { type Address, binding, type TcpConnectRequest, type TcpHandle } from "../../../runtime/binding.ts";
import type { Destination, Egress } from "../../../runtime/egress.ts";
import { failConnect, type OpenConnection } from "../../../runtime/tcp.ts";
import type { VsockSocket } from "../../../runtime/vsock.ts";
import { answer, connectHandle } from "./loopback.ts";
import type { StreamOutbound } from "./outbound.ts";

const { ECANCELED, EACCES } = constants.errno;
/** How long an accepted connection may wait to be known as ours, milliseconds. */
const STRANGER_LIMIT_MS = 10_000;
const { getsockname } = binding("tcp_wrap").TCP.prototype;

/** Joins connections of this process to streams. They are told apart by their ports; anyone else's are closed. */
class Bridge {
  readonly #accepted = new Map<number, Socket>();
  readonly #expected = new Map<number, VsockSocket>();
  readonly #server: Server;

  constructor() {
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
    this.#server.listen(0, "127.0.0.1");
    // Only the app's own handles keep it running.
    this.#server.unref();
  }

  get port(): number {
    return (this.#server.address() as Address).port;
  }

  #accept(socket: Socket): void {
    const port = socket.remotePort ?? 0;
    socket.unref();
    socket.on("error", () => {});
    const stream = this.#expected.get(port);
    if (stream !== undefined) {
      this.#expected.delete(port);
      relayStreams(socket, stream);
      return;
    }
    this.#accepted.set(port, socket);
    const timer = setTimeout(() => socket.destroy(), STRANGER_LIMIT_MS).unref();
    socket.once("close", () => {
      clearTimeout(timer);
      if (this.#accepted.get(port) === socket) this.#accepted.delete(port);
    });
  }

  /** The connection from this port is the stream's. */
  join(port: number, stream: VsockSocket): void {
    stream.unref();
    const socket = this.#accepted.get(port);
    if (socket === undefined) {
      this.#expected.set(port, stream);
      stream.once("close", () => this.#expected.delete(port));
      return;
    }
    this.#accepted.delete(port);
    socket.removeAllListeners("close");
    relayStreams(socket, stream);
  }
}

/** Made before the app's servers are watched, so that it is none of them. */
export function openBridge(outbound: StreamOutbound): (egress: Egress) => OpenConnection {
  const bridge = new Bridge();
  return (egress) => (handle, request, destination, peer) =>
    void new Connection({ egress, outbound, bridge }, handle, request).open(destination, peer);
}

interface Ways {
  readonly egress: Egress;
  readonly outbound: StreamOutbound;
  readonly bridge: Bridge;
}

type Peer = Pick<Address, "address" | "port">;

/** One connect of one handle. */
class Connection {
  readonly #ways: Ways;
  readonly #handle: TcpHandle;
  readonly #request: TcpConnectRequest;
  readonly #aborter = new AbortController();

  constructor(ways: Ways, handle: TcpHandle, request: TcpConnectRequest) {
    this.#ways = ways;
    this.#handle = handle;
    this.#request = request;
    // Until it is connected: a socket that is destroyed, or whose attempt timed out, is closed here.
    const { close } = handle;
    handle.close = (callback) => {
      Reflect.deleteProperty(handle, "close");
      this.#aborter.abort();
      close.call(handle, callback);
    };
  }

  /** Never rejects. */
  async open(destination: Destination, peer: Peer): Promise<void> {
    const { egress, outbound } = this.#ways;
    const { signal } = this.#aborter;
    try {
      const { status, stream } = await outbound.connect({ type: "connect", ...destination }, signal);
      if (status === -EACCES) egress.sayRefused(destination);
      if (signal.aborted) stream.destroy();
      if (status < 0 || signal.aborted) this.#complete(signal.aborted ? -ECANCELED : status);
      else this.#adopt(stream, peer);
    } catch (error) {
      if (signal.aborted) this.#complete(-ECANCELED);
      else failConnect(this.#handle, egress.fail(`connect ${destination.host}:${destination.port}`, error));
    }
  }

  #complete(status: number): void {
    const { oncomplete } = this.#request;
    if (!this.#aborter.signal.aborted) Reflect.deleteProperty(this.#handle, "close");
    process.nextTick(() => oncomplete?.(status, this.#handle, this.#request, status === 0, status === 0));
  }

  #adopt(stream: VsockSocket, peer: Peer): void {
    const handle = this.#handle;
    const request = this.#request as { oncomplete?: TcpConnectRequest["oncomplete"] };
    const { oncomplete } = request;
    const abandon = () => stream.destroy();
    this.#aborter.signal.addEventListener("abort", abandon, { once: true });
    request.oncomplete = (status, ...rest) => {
      this.#aborter.signal.removeEventListener("abort", abandon);
      if (status === 0) this.#join(stream, peer);
      else stream.destroy();
      oncomplete?.(status, ...rest);
    };
    const status = connectHandle.call(handle, this.#request, "127.0.0.1", this.#ways.bridge.port);
    if (status === 0) return;
    stream.destroy();
    request.oncomplete = oncomplete;
    this.#complete(status);
  }

  #join(stream: VsockSocket, peer: Peer): void {
    const handle = this.#handle;
    Reflect.deleteProperty(handle, "close");
    const local: Partial<Address> = {};
    getsockname.call(handle, local);
    this.#ways.bridge.join(Number(local.port), stream);
    handle.getpeername = (into) => answer(into, peer);
    handle.getsockname = (into) =>
      answer(into, { address: peer.address.includes(":") ? "::" : "0.0.0.0", port: 0 });
  }
}
