/** The client of inbound.ts and outbound.ts: sockets with one buffer for all, so that what is measured is not the client. */
import { once } from "node:events";
import { connect, type NetConnectOpts, type Socket } from "node:net";
import { STATUS_SIZE } from "../format/outbound.ts";

/** How the app is reached: a TCP port, or a Unix socket. */
export interface Way {
  readonly port?: number;
  readonly path?: string;
  /** Bytes to say first, in base64; a status of 4 bytes answers them (format/outbound.ts). */
  readonly greeting?: string;
}

export interface Load extends Way {
  readonly connections: number;
  readonly seconds: number;
}

export interface Latency {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const GET = Buffer.from("GET / HTTP/1.1\r\nHost: bench\r\n\r\n");
const buffer = Buffer.alloc(256 * 1024);

/** A connected socket whose bytes are counted, and forgotten. */
async function open({ port, path, greeting }: Way, onBytes: (count: number) => void): Promise<Socket> {
  const { promise: carried, resolve } = Promise.withResolvers<void>();
  let skip = greeting === undefined ? 0 : STATUS_SIZE;
  const onread = {
    buffer,
    callback: (count: number) => {
      const rest = count - skip;
      skip = Math.max(0, -rest);
      if (skip === 0) resolve();
      if (rest > 0) onBytes(rest);
      return true;
    },
  };
  const place = path === undefined ? { port, host: "127.0.0.1", noDelay: true } : { path };
  // The types have `onread` for the constructor only.
  const socket = connect({ ...place, onread } as NetConnectOpts);
  await once(socket, "connect");
  if (greeting !== undefined) {
    socket.write(greeting, "base64");
    await carried;
  }
  return socket;
}

/** Length of the answer to GET, bytes. */
async function answerLength(way: Way): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const socket = await open(way, resolve);
  socket.write(GET);
  const length = await promise;
  socket.destroy();
  return length;
}

function latency(times: number[], seconds: number): Latency {
  times.sort((a, b) => a - b);
  const quantile = (q: number) => Number((times[Math.floor(times.length * q)] ?? 0).toFixed(3));
  return { perSecond: Math.round(times.length / seconds), p50Ms: quantile(0.5), p99Ms: quantile(0.99) };
}

/** Connections that stay, each with one request at a time; a second to warm up. They go on until the process ends. */
export async function request({ connections, seconds, ...way }: Load): Promise<Latency> {
  const length = await answerLength(way);
  const times: number[] = [];
  let since = Number.POSITIVE_INFINITY;
  for (let n = 0; n < connections; n++) {
    let [begin, missing] = [0, length];
    const socket = await open(way, (count) => {
      missing -= count;
      if (missing > 0) return;
      const now = performance.now();
      if (begin >= since) times.push(now - begin);
      [begin, missing] = [now, length];
      socket.write(GET);
    });
    begin = performance.now();
    socket.write(GET);
  }
  await after(1);
  since = performance.now();
  await after(seconds);
  return latency(times, seconds);
}

function after(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** Bytes without end, `D`own or `U`p. Megabytes (1e6) that were carried in time; they flow until the process ends. */
export async function stream({ connections, seconds, ...place }: Load, way: "D" | "U"): Promise<number> {
  let bytes = 0;
  const chunk = Buffer.alloc(64 * 1024, 98);
  const sockets = await Promise.all(
    Array.from({ length: connections }, () => open(place, (count) => (bytes += count))),
  );
  for (const socket of sockets) {
    socket.on("error", () => {});
    socket.write(way);
    if (way === "D") continue;
    const send = () => {
      while (socket.write(chunk));
    };
    socket.on("drain", send);
    send();
  }
  await after(seconds);
  const sent = sockets.reduce(
    (sum, { bytesWritten, writableLength }) => sum + bytesWritten - writableLength,
    0,
  );
  return (way === "D" ? bytes : sent) / 1e6;
}

/** Connect, one byte there and back, close: so many a second, `connections` at a time. */
export async function connectRate({ connections, seconds, ...way }: Load): Promise<Latency> {
  const times: number[] = [];
  const end = performance.now() + seconds * 1000;
  const loop = async () => {
    while (performance.now() < end) {
      const begin = performance.now();
      const { promise, resolve } = Promise.withResolvers<void>();
      const socket = await open(way, () => resolve());
      socket.write("E");
      await promise;
      times.push(performance.now() - begin);
      // A reset leaves no port behind that waits. A Unix socket has neither.
      if (way.path === undefined) socket.resetAndDestroy();
      else socket.destroy();
    }
  };
  await Promise.all(Array.from({ length: connections }, loop));
  return latency(times, seconds);
}

/** Open connections that do nothing. */
export async function holdOpen({ connections, ...way }: Load): Promise<number> {
  for (let n = 0; n < connections; n++) await open(way, () => {});
  return connections;
}
