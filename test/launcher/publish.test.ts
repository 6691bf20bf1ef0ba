/** A published port: bytes both ways, ends, errors and backpressure passed on, and who comes early. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import type { VsockStream } from "../../launcher/device.ts";
import { type Publisher, publishPort } from "../../launcher/publish.ts";
import { pair } from "./fake.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanups.splice(0)) await cleanUp();
});

/** A publisher, and the enclave's ends of what is relayed. */
async function publish(): Promise<{
  publisher: Publisher;
  accepted: AsyncIterator<VsockStream>;
  start(): void;
}> {
  const publisher = await publishPort({ port: 0, vsockPort: 5000 });
  cleanups.push(() => publisher.close());
  const queue: VsockStream[] = [];
  let wake = () => {};
  const accepted = (async function* () {
    for (;;) {
      const stream = queue.shift();
      if (stream !== undefined) yield stream;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  })();
  const start = () =>
    publisher.start(async (port) => {
      const [ours, theirs] = pair({ cid: 3, port: 1 }, { cid: 16, port });
      theirs.on("error", () => {});
      queue.push(theirs);
      wake();
      return ours;
    });
  return { publisher, accepted, start };
}

function dial({ port, address }: Publisher): Socket {
  const socket = connect({ port, host: address, allowHalfOpen: true });
  cleanups.push(() => socket.destroy());
  return socket;
}

/** All up to the end. (stream/consumers would destroy a stream that can still be written.) */
async function collect(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "end");
  return Buffer.concat(chunks);
}

async function read(stream: Duplex): Promise<string> {
  return String(await collect(stream));
}

async function next(accepted: AsyncIterator<VsockStream>): Promise<VsockStream> {
  const { value } = await accepted.next();
  return value as VsockStream;
}

test("names the real port of port 0, on the loopback by default", async () => {
  const { publisher } = await publish();
  expect(publisher).toMatchObject({ address: "127.0.0.1", vsockPort: 5000 });
  expect(publisher.port).toBeGreaterThan(0);
});

test("half-close both ways: the client ends first and is answered, then the enclave", async () => {
  const { publisher, accepted, start } = await publish();
  start();
  const client = dial(publisher);
  client.end("question");
  const enclave = await next(accepted);
  expect(await read(enclave)).toBe("question");
  enclave.end("answer");
  expect(await read(client)).toBe("answer");

  const second = dial(publisher);
  const other = await next(accepted);
  other.end("greeting");
  expect(await read(second)).toBe("greeting");
  second.end("late");
  expect(await read(other)).toBe("late");
});

test("a connection that comes before the app is ready waits, with its bytes", async () => {
  const { publisher, accepted, start } = await publish();
  const client = dial(publisher);
  client.end("early");
  await once(client, "connect");
  start();
  expect(await read(await next(accepted))).toBe("early");
});

test("32 MiB both ways at once arrive whole", async () => {
  const { publisher, accepted, start } = await publish();
  start();
  const client = dial(publisher);
  const enclave = await next(accepted);
  enclave.pipe(enclave);
  const sent = randomBytes(32 << 20);
  client.end(sent);
  expect((await collect(client)).equals(sent)).toBe(true);
});

test("backpressure: an enclave that does not read stalls the client, and costs no memory", async () => {
  const { publisher, accepted, start } = await publish();
  start();
  const client = dial(publisher);
  const enclave = await next(accepted);
  const chunk = Buffer.alloc(1 << 20);
  let written = 0;
  while (written < 256 << 20) {
    written += chunk.length;
    // The kernel's TCP buffers take a few MiB; after that a drain never comes.
    if (!client.write(chunk) && !(await Promise.race([drained(client), stalled(enclave)]))) break;
  }
  expect(written).toBeLessThan(64 << 20);
});

async function drained(socket: Socket): Promise<true> {
  await once(socket, "drain");
  return true;
}

/** The relay filled the enclave's side up. */
async function stalled(stream: VsockStream): Promise<false> {
  while (stream.readableLength < stream.readableHighWaterMark)
    await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, 200));
  return false;
}

describe("what breaks on one side breaks on the other", () => {
  test("the enclave refuses: the client is reset", async () => {
    const { publisher } = await publish();
    publisher.start(() => Promise.reject(Object.assign(new Error("connect"), { code: "ECONNRESET" })));
    const client = dial(publisher);
    const [error] = await once(client, "error");
    expect(error).toMatchObject({ code: "ECONNRESET" });
  });

  test("the enclave resets: so is the client", async () => {
    const { publisher, accepted, start } = await publish();
    start();
    const client = dial(publisher);
    const enclave = await next(accepted);
    enclave.write("half a");
    await once(client, "data");
    enclave.destroy();
    const [error] = await once(client, "error");
    expect(error).toMatchObject({ code: "ECONNRESET" });
  });

  test("the client resets: so is the enclave", async () => {
    const { publisher, accepted, start } = await publish();
    start();
    const client = dial(publisher);
    const enclave = await next(accepted);
    const closed = new Promise((resolve) => enclave.once("close", resolve));
    client.resetAndDestroy();
    await closed;
    expect(enclave.errored).toMatchObject({ code: "ECONNRESET" });
  });

  test("closing resets who waits and who is served", async () => {
    const { publisher, accepted, start } = await publish();
    const waiting = dial(publisher);
    await once(waiting, "connect");
    start();
    await next(accepted);
    publisher.close();
    const [error] = await once(waiting, "error");
    expect(error).toMatchObject({ code: "ECONNRESET" });
    const [refused] = await once(dial(publisher), "error");
    expect(refused).toMatchObject({ code: "ECONNREFUSED" });
  });

  test("after both ends said goodbye nothing is left", async () => {
    const { publisher, accepted, start } = await publish();
    start();
    for (let n = 0; n < 20; n++) {
      const client = dial(publisher);
      client.end("x");
      const enclave = await next(accepted);
      // Ends while the client's own end is still on its way: a reset here would leak the handle.
      enclave.end("y");
      enclave.resume();
      expect(await read(client)).toBe("y");
    }
    await expect.poll(openSockets).toBe(0);
  });
});

test("closing while a socket sends its last bytes leaks no handle", async () => {
  const publisher = await publishPort({ port: 0, vsockPort: 5000 });
  publisher.start(async (port) => {
    const [ours, theirs] = pair({ cid: 3, port: 1 }, { cid: 16, port });
    theirs.on("error", () => {});
    // Two ticks after the end libuv has the shutdown request and has not answered it.
    ours.once("end", () => process.nextTick(() => process.nextTick(() => publisher.close())));
    theirs.end("answer");
    return ours;
  });
  const client = dial(publisher);
  client.on("error", () => {});
  await once(client, "connect");
  client.resume();
  client.once("end", () => client.destroy());
  await new Promise((resolve) => client.once("close", resolve));
  await expect.poll(openSockets).toBe(0);
});

function openSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
}

describe("a port that cannot be had", () => {
  test("taken", async () => {
    const server: Server = createServer().listen(0, "127.0.0.1");
    cleanups.push(() => server.close());
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const error = publishPort({ port, vsockPort: 1 });
    await expect(error).rejects.toMatchObject({
      code: "E_PORT_TAKEN",
      message: `127.0.0.1:${port}: got EADDRINUSE, expected a free port`,
      fix: expect.stringContaining(`sport = :${port}`),
    });
  });

  test("an address that is not ours", async () => {
    const error = publishPort({ address: "192.0.2.1", port: 0, vsockPort: 1 });
    await expect(error).rejects.toMatchObject({ code: "E_PORT_UNUSABLE" });
  });
});
