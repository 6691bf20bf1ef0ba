/** The parent's proxy under test: a TCP connection plays the vsock, a table the resolver. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, vi } from "vitest";
import { encodeOutboundRequest, type OutboundRequest } from "../../format/outbound.ts";
import { DescriptorRelay } from "../../launcher/descriptors.ts";
import type { VsockStream } from "../../launcher/device.ts";
import { type EgressOptions, EgressProxy } from "../../launcher/egress.ts";
import { Resolver } from "../../launcher/resolver.ts";

export const ENOTFOUND = -3008;
export const EAI_AGAIN = -3001;
export const EACCES = -13;
export const ECONNREFUSED = -111;

/** How connections are relayed: by Node's streams, and by their descriptors where both sides have one. */
export const RELAYS = [
  ["streams", () => ({})],
  ["descriptors", () => ({ descriptors: new DescriptorRelay() })],
] as const;

const servers: Server[] = [];
const open = new Set<Socket>();
afterEach(() => {
  for (const socket of open) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

export async function serve(
  onConnection: (socket: Socket) => void,
  address = "127.0.0.1",
): Promise<{ address: string; port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on("error", () => {});
    onConnection(socket);
  }).listen(0, address);
  servers.push(server);
  await once(server, "listening");
  return { address, port: (server.address() as AddressInfo).port };
}

/** A proxy, and the enclave's end of a stream to it: a TCP connection plays the vsock. */
export async function proxy(options: Partial<EgressOptions>) {
  const refusals: string[] = [];
  const carrier = new EgressProxy({
    rules: [],
    onRefusal: (reason) => refusals.push(reason),
    ...options,
  });
  const streams: Socket[] = [];
  const { port } = await serve((socket) => {
    streams.push(socket);
    void carrier.accept(socket as unknown as VsockStream);
  });
  const dial = () => {
    const stream = connect({ port, allowHalfOpen: true });
    open.add(stream);
    stream.on("error", () => {});
    return stream;
  };
  const ask = (request: OutboundRequest) => {
    const stream = dial();
    stream.write(encodeOutboundRequest(request));
    return stream;
  };
  /** The proxy broke the stream: it did not end it, for then it would still read. */
  const broken = async () => {
    for (const stream of streams) if (!stream.closed) await once(stream, "close");
  };
  const accepted = () => vi.waitUntil(() => streams.length > 0);
  return { refusals, accepted, dial, ask, broken, close: () => carrier.close() };
}

export async function take(stream: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const bytes = stream.read(length) as Buffer | null;
    if (bytes !== null) return bytes;
    await once(stream, "readable");
  }
}

export const status = async (stream: Socket) => (await take(stream, 4)).readInt32BE(0);
export const dialling = (host: string, port: number, family: 0 | 4 | 6 = 0) =>
  ({ type: "connect", host, port, family }) as const;
export const found = (...addresses: string[]) =>
  new Resolver(async () => addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })));
