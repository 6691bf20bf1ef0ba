/** What needs no peer: addresses, ports, errors, and how bytes reach the kernel. Whole streams: test/init/vm.test.ts. */
import { once } from "node:events";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CID_ANY, CID_PARENT, PORT_HEARTBEAT, VSOCK_WRITE_MAX } from "../../format/abi.ts";
import { makeSocketPair } from "../../linux/descriptor.ts";
import { openStream } from "../../linux/stream.ts";
import {
  connectVsock,
  decodeAddress,
  encodeAddress,
  listenVsock,
  PORT_ANY,
  VsockSocket,
} from "../../linux/vsock.ts";

/** A CID that nobody has. */
const NOBODY = 0x7ead_beef;

// struct sockaddr_vm as gcc lays it out on x86_64: family 40, reserved, port, cid, flags and zeros.
const VECTORS = [
  { cid: CID_PARENT, port: PORT_HEARTBEAT, hex: "28000000282300000300000000000000" },
  { cid: CID_ANY, port: 1, hex: "2800000001000000ffffffff00000000" },
  { cid: 16, port: PORT_ANY, hex: "28000000ffffffff1000000000000000" },
];

test.each(VECTORS)("address $cid:$port", ({ cid, port, hex }) => {
  expect(Buffer.from(encodeAddress({ cid, port })).toString("hex")).toBe(hex);
  expect(decodeAddress(Buffer.from(hex, "hex"))).toEqual({ cid, port });
});

test("addresses decode to what was encoded", () => {
  const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
  fc.assert(
    fc.property(u32, u32, (cid, port) => {
      expect(decodeAddress(encodeAddress({ cid, port }))).toEqual({ cid, port });
    }),
  );
});

test("a listener has its port alone, until it closes", async () => {
  const listener = listenVsock({ port: PORT_ANY }, () => {});
  expect(listener.port).toBeGreaterThan(1023);
  expect(() => listenVsock({ port: listener.port }, () => {})).toThrow(
    expect.objectContaining({ code: "EADDRINUSE" }),
  );
  await new Promise<void>((resolve) => listener.close(resolve));
  const again = listenVsock({ port: listener.port }, () => {});
  await new Promise<void>((resolve) => again.close(resolve));
});

test("a connect that nobody answers fails with Node's code, at the latest when its time is up", async () => {
  const start = performance.now();
  const failure = await connectVsock({ cid: NOBODY, port: 1, timeoutMs: 100 }).catch((error) => error);
  expect(failure.code).toBeOneOf(["ETIMEDOUT", "ECONNRESET", "ENODEV", "EHOSTUNREACH"]);
  expect(failure.message).toContain(`vsock ${NOBODY}:1`);
  expect(performance.now() - start).toBeLessThan(60_000);
});

test("a connect is given up with its signal's reason", async () => {
  const reason = new Error("enough");
  const before = AbortSignal.abort(reason);
  await expect(connectVsock({ cid: NOBODY, port: 1, signal: before })).rejects.toBe(reason);
});

/** A stream whose handle tells how many bytes each write(2) was given. */
function watched() {
  const [ours, theirs] = makeSocketPair();
  const socket = openStream(ours, { allowHalfOpen: true }, VsockSocket);
  const peer = openStream(theirs, { allowHalfOpen: true });
  const sizes: number[] = [];
  const handle = (socket as unknown as { _handle: Record<string, (...args: unknown[]) => number> })._handle;
  for (const name of ["writeBuffer", "writeUtf8String", "writeLatin1String", "writev"]) {
    const original = handle[name] as (...args: unknown[]) => number;
    handle[name] = function (request: unknown, data: unknown, ...rest: unknown[]) {
      sizes.push(Buffer.byteLength(data as string));
      return original.call(this, request, data, ...rest);
    };
  }
  return { socket, peer, sizes };
}

test.each([
  ["a large buffer", (socket: VsockSocket) => socket.write(Buffer.alloc(1_000_000, "ab"))],
  ["a large text", (socket: VsockSocket) => socket.write("é".repeat(500_000))],
  [
    "many corked pieces",
    (socket: VsockSocket) => {
      socket.cork();
      for (let i = 0; i < 1_000; i++) socket.write(i % 2 === 0 ? "x".repeat(500) : Buffer.alloc(1_500, "y"));
      socket.uncork();
    },
  ],
])("%s reaches the kernel in pieces that every hypervisor takes", async (_, write) => {
  const { socket, peer, sizes } = watched();
  write(socket);
  socket.end();
  let received = 0;
  peer.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  await once(peer, "end");
  expect(received).toBe(1_000_000);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(VSOCK_WRITE_MAX);
  expect(sizes.reduce((a, b) => a + b)).toBe(received);
  peer.destroy();
});

test("a peer that is no vsock address is unknown, not an error", () => {
  const { socket, peer } = watched();
  expect([socket.remoteCid, socket.remotePort]).toEqual([CID_ANY, PORT_ANY]);
  socket.destroy();
  peer.destroy();
});
