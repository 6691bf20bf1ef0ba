/** A published port: bytes both ways, ends, errors and backpressure passed on, and who comes early. */

import { spawnSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { decodeProxyHeader, PROXY_PREFIX_SIZE } from "../../format/proxy.ts";
import { passedSocket } from "../../launcher/listener.ts";
import { again, type Publish, type Publisher, publishPort } from "../../launcher/publish.ts";
import { abstractAddress, connectUnix, openUnix } from "../../linux/unix.ts";
import { pair } from "./fake.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanups.splice(0)) await cleanUp();
});

/** How the relay gets to the enclave: in the emulator, and on an EC2 parent. */
const WAYS = ["a stream", "a descriptor"] as const;

/** A queue of what was accepted. */
function acceptance() {
  const queue: Duplex[] = [];
  let wake = () => {};
  const accepted = (async function* () {
    for (;;) {
      const stream = queue.shift();
      if (stream !== undefined) yield stream;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  })();
  const accept = (stream: Duplex) => {
    stream.on("error", () => {});
    queue.push(stream);
    wake();
  };
  return { accept, accepted };
}

/** An enclave's port behind descriptors: a Unix socket, whose peer can tell a shutdown from a close as vsock's can. */
async function listenUnix(accept: (stream: Duplex) => void): Promise<() => Promise<number>> {
  const name = `cloister-publish-${randomUUID()}`;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    cleanups.push(() => socket.destroy());
    accept(socket);
  });
  cleanups.push(() => server.close());
  await once(server.listen(`\0${name}`), "listening");
  return async () => {
    const fd = openUnix();
    connectUnix(fd, abstractAddress(name));
    return fd;
  };
}

/** A publisher, and the enclave's ends of what is relayed. */
async function publish(
  way: (typeof WAYS)[number] = "a stream",
  wanted: Publish = { port: 0, vsockPort: 5000 },
): Promise<{
  publisher: Publisher;
  accepted: AsyncIterator<Duplex>;
  start(): void;
}> {
  const publisher = await publishPort(wanted);
  cleanups.push(() => publisher.close());
  const { accept, accepted } = acceptance();
  const open = way === "a descriptor" ? await listenUnix(accept) : undefined;
  const connectStream = async (port: number) => {
    const [ours, theirs] = pair({ cid: 3, port: 1 }, { cid: 16, port });
    accept(theirs);
    return ours;
  };
  return { publisher, accepted, start: () => publisher.start(open ?? connectStream) };
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

async function next(accepted: AsyncIterator<Duplex>): Promise<Duplex> {
  const { value } = await accepted.next();
  return value as Duplex;
}

test("names the real port of port 0, on the loopback by default", async () => {
  const { publisher } = await publish();
  expect(publisher).toMatchObject({ address: "127.0.0.1", vsockPort: 5000 });
  expect(publisher.port).toBeGreaterThan(0);
});

describe.each(WAYS)("by %s", (way) => {
  test("half-close both ways: the client ends first and is answered, then the enclave", async () => {
    const { publisher, accepted, start } = await publish(way);
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
    const { publisher, accepted, start } = await publish(way);
    const client = dial(publisher);
    client.end("early");
    await once(client, "connect");
    start();
    expect(await read(await next(accepted))).toBe("early");
  });

  test("32 MiB both ways at once arrive whole", async () => {
    const { publisher, accepted, start } = await publish(way);
    start();
    const client = dial(publisher);
    const enclave = await next(accepted);
    enclave.pipe(enclave);
    const sent = randomBytes(32 << 20);
    client.end(sent);
    expect((await collect(client)).equals(sent)).toBe(true);
  });

  test("backpressure: an enclave that does not read stalls the client, and costs no memory", async () => {
    const { publisher, accepted, start } = await publish(way);
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
});

async function drained(socket: Socket): Promise<true> {
  await once(socket, "drain");
  return true;
}

/** The relay filled the enclave's side up. */
async function stalled(stream: Duplex): Promise<false> {
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

  test.each(WAYS)("the client resets: the enclave hears of it, by %s", async (way) => {
    const { publisher, accepted, start } = await publish(way);
    start();
    const client = dial(publisher);
    const enclave = await next(accepted);
    const closed = new Promise((resolve) => enclave.once("close", resolve));
    enclave.resume();
    client.resetAndDestroy();
    // A Unix socket has no resets: it sees that nobody is there to write to.
    if (way === "a descriptor") enclave.once("end", () => enclave.write("anyone?"));
    await closed;
    expect(enclave.errored).toMatchObject({ code: way === "a stream" ? "ECONNRESET" : "EPIPE" });
  });

  test.each(WAYS)("closing resets who waits and who is served, by %s", async (way) => {
    const { publisher, accepted, start } = await publish(way);
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

  test.each(WAYS)("after both ends said goodbye nothing is left, by %s", async (way) => {
    const { publisher, accepted, start } = await publish(way);
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
    await expect
      .poll(() => publisher.traffic())
      .toEqual({
        ...{ accepted: 20, open: 0, refused: 0 },
        ...{ bytesIn: 20, bytesOut: 20 },
      });
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

describe.each(WAYS)("PROXY protocol, by %s", (way) => {
  test("the header is what the enclave gets first", async () => {
    const { publisher, accepted, start } = await publish(way, {
      port: 0,
      vsockPort: 5000,
      proxyProtocol: true,
    });
    start();
    const client = dial(publisher);
    client.end("the client's");
    await once(client, "connect");
    const { localAddress: address, localPort: port } = client;
    const received = await collect(await next(accepted));
    const size = PROXY_PREFIX_SIZE + 12;
    expect(decodeProxyHeader(received.subarray(0, size))).toEqual({
      source: { address, port },
      destination: { address: publisher.address, port: publisher.port },
    });
    expect(String(received.subarray(size))).toBe("the client's");
  });

  test("a client of a Unix socket has no address", async () => {
    const path = join(folder(), "proxy.sock");
    const { accepted, start } = await publish(way, { path, vsockPort: 5000, proxyProtocol: true });
    start();
    const client = connect(path);
    client.end("local");
    const received = await collect(await next(accepted));
    expect(decodeProxyHeader(received.subarray(0, PROXY_PREFIX_SIZE))).toBeUndefined();
    expect(String(received.subarray(PROXY_PREFIX_SIZE))).toBe("local");
  });
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "cloister-publish-"));
  cleanups.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

describe("a Unix socket", () => {
  test("is this user's alone, and goes with the port", async () => {
    const path = join(folder(), "app.sock");
    const publisher = await publishPort({ path, vsockPort: 1 });
    expect(publisher).toMatchObject({ address: `unix:${path}`, port: 0 });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    publisher.close();
    await expect.poll(() => existsSync(path)).toBe(false);
  });

  test("of a dead process is replaced; of a living one, or a file, is not", async () => {
    const path = join(folder(), "app.sock");
    const code = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", code]);
    expect(statSync(path).isSocket()).toBe(true);
    const publisher = await publishPort({ path, vsockPort: 1 });
    const second = publishPort({ path, vsockPort: 1 });
    await expect(second).rejects.toMatchObject({
      code: "E_SOCKET_UNUSABLE",
      message: expect.stringContaining(path),
    });
    publisher.close();
    await expect.poll(() => existsSync(path)).toBe(false);
    writeFileSync(path, "a file");
    await expect(publishPort({ path, vsockPort: 1 })).rejects.toMatchObject({ code: "E_SOCKET_UNUSABLE" });
    expect(existsSync(path)).toBe(true);
  });
});

describe("a socket of systemd's", () => {
  const pid = String(process.pid);

  test.each([
    ["", { LISTEN_PID: pid, LISTEN_FDS: "1" }, 3],
    ["b", { LISTEN_PID: pid, LISTEN_FDS: "3", LISTEN_FDNAMES: "a:b:c" }, 4],
  ])("%j of %j is descriptor %d", (name, env, fd) => {
    expect(passedSocket(name, env)).toBe(fd);
  });

  test.each([
    ["", {}, "found no LISTEN_PID"],
    ["", { LISTEN_PID: "1", LISTEN_FDS: "1" }, "found LISTEN_PID=1"],
    ["", { LISTEN_PID: pid }, "found 0 named nothing, expected one socket"],
    ["", { LISTEN_PID: pid, LISTEN_FDS: "2" }, "found 2"],
    ["a", { LISTEN_PID: pid, LISTEN_FDS: "2", LISTEN_FDNAMES: "a:a" }, "expected one socket named a"],
    ["b", { LISTEN_PID: pid, LISTEN_FDS: "1", LISTEN_FDNAMES: "a" }, "found 1 named a"],
    ["", { LISTEN_PID: pid, LISTEN_FDS: "x" }, "found 0"],
  ])("%j of %j is E_ACTIVATION", (name, env, message) => {
    expect(() => passedSocket(name, env)).toThrow(message);
  });

  test("is listened on, and stays open for the next start of the enclave", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    cleanups.push(() => server.close());
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const module = new URL("../../launcher/publish.ts", import.meta.url).href;
    // $$ of the shell is the program's pid after exec, as systemd has it.
    const script = `export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec "$0" --input-type=module -e "$1"`;
    const code = `
      const { publishPort } = await import(${JSON.stringify(module)});
      for (const name of ["web", ""]) {
        const publisher = await publishPort({ systemd: name, vsockPort: 1 });
        console.log(publisher.address, publisher.port);
        publisher.close();
      }
      const file = await publishPort({ systemd: "other", vsockPort: 1 }).catch((error) => error.code);
      console.log(file);
    `;
    const handle = (server as unknown as { _handle: { fd: number } })._handle.fd;
    const child = spawnSync("sh", ["-c", script, process.execPath, code], {
      stdio: ["ignore", "pipe", "pipe", handle],
      encoding: "utf8",
    });
    const line = `127.0.0.1 ${port}\n`;
    expect(child.stdout).toBe(`${line}${line}E_ACTIVATION\n`);
  });
});

test("a later start has the free port that the first one found", () => {
  const wanted: Publish[] = [
    { port: 0, vsockPort: 1, proxyProtocol: true },
    { path: "/run/a.sock", vsockPort: 2 },
  ];
  const published = [
    { address: "127.0.0.1", port: 4321, vsockPort: 1 },
    { address: "unix:/run/a.sock", port: 0, vsockPort: 2 },
  ];
  expect(again(wanted, published)).toEqual([{ ...wanted[0], port: 4321 }, wanted[1]]);
});
