/**
 * The device under a real kernel: QEMU microvm, our kernel, Node 26 as init. The counts are those that the device promises;
 * idle, all of it takes about a minute on two cores without KVM.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findQemu } from "../../emulator/qemu.ts";
import type { VsockStream } from "../../emulator/vsock/stream.ts";
import { startVm, VM_CID, type Vm } from "./vm.ts";
import { pattern } from "./vm-guest.ts";

const MIB = 1024 * 1024;
const LONG_MS = 900_000;
const block = pattern();

function hasQemu(): boolean {
  try {
    execFileSync(findQemu(), ["--version"]);
    return existsSync(new URL("../../kernel/x86_64/bzImage", import.meta.url));
  } catch {
    return false;
  }
}

async function writeAll(stream: VsockStream, bytes: number, write: number): Promise<void> {
  for (let sent = 0; sent < bytes; ) {
    const offset = sent % block.length;
    const chunk = block.subarray(offset, offset + Math.min(write, block.length - offset, bytes - sent));
    sent += chunk.length;
    if (!stream.write(chunk)) await once(stream, "drain");
  }
}

function patternHash(bytes: number): string {
  const hash = createHash("sha256");
  for (let done = 0; done < bytes; done += block.length)
    hash.update(block.subarray(0, Math.min(block.length, bytes - done)));
  return hash.digest("hex");
}

async function readHash(stream: VsockStream): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  await once(stream, "end");
  return { bytes, sha256: hash.digest("hex") };
}

async function readText(stream: VsockStream): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return text;
}

describe.skipIf(!hasQemu())("a guest", () => {
  let vm: Vm;
  let port = 1000;
  beforeAll(async () => {
    vm = await startVm();
  });
  afterAll(() => vm?.close());

  /** Listen on a port of its own for one connection. */
  function nextConnection(): { readonly port: number; readonly stream: Promise<VsockStream> } {
    const { promise, resolve } = Promise.withResolvers<VsockStream>();
    port++;
    const listener = vm.device.listen(port, (stream) => {
      listener.close();
      resolve(stream);
    });
    return { port, stream: promise };
  }

  /** Have the guest listen, and connect to it. */
  async function connect(mode: "echo" | "stall" | "count"): Promise<VsockStream> {
    port++;
    await vm.run({ do: "listen", port, mode });
    return vm.device.connect(port);
  }

  test("is refused at once, both ways", async () => {
    for (const cid of [3, 2, 0, 4711]) {
      const { code, ms } = await vm.run({ do: "refused", cid, port: 999 });
      expect(code).toBe("ECONNRESET");
      // The kernel's own time limit, were there no RST, is the 10 s of our vsock sockets.
      expect(ms).toBeLessThan(5000);
    }
    await expect(vm.device.connect(999)).rejects.toMatchObject({ code: "ECONNRESET", syscall: "connect" });
  });

  test.each([1024, 31 * 1024, 64 * 1024, MIB])("writes of %i bytes are intact, both ways", async (write) => {
    const bytes = 24 * MIB;
    const up = nextConnection();
    const sending = vm.run({ do: "source", port: up.port, bytes, write });
    const stream = await up.stream;
    expect(stream.remoteCid).toBe(VM_CID);
    expect(await readHash(stream)).toEqual({ bytes, sha256: patternHash(bytes) });
    stream.end("after the end");
    expect(await sending).toMatchObject({ answer: 13 });

    const down = nextConnection();
    const receiving = vm.run({ do: "sink", port: down.port, verify: true });
    const sink = await down.stream;
    await writeAll(sink, bytes, write);
    sink.end().resume();
    expect(await receiving).toMatchObject({ bytes, isIntact: true });
  });

  test("answers after our end", async () => {
    const stream = await connect("count");
    await writeAll(stream, 3 * MIB + 1, 100_000);
    stream.end();
    expect(await readText(stream)).toBe(String(3 * MIB + 1));
  });

  test("echoes 1 GiB with the same SHA-256", { timeout: LONG_MS }, async () => {
    const bytes = 1024 * MIB;
    const stream = await connect("echo");
    const receiving = readHash(stream);
    await writeAll(stream, bytes, 64 * 1024);
    stream.end();
    expect(await receiving).toEqual({ bytes, sha256: patternHash(bytes) });
  });

  test("holds 500 connections at once, each way", { timeout: LONG_MS }, async () => {
    port++;
    const listener = vm.device.listen(port, (stream) => stream.pipe(stream));
    expect(await vm.run({ do: "many", port, count: 500 })).toEqual({ count: 500 });
    listener.close();

    port++;
    await vm.run({ do: "listen", port, mode: "echo" });
    const streams = await Promise.all(
      Array.from({ length: 500 }, () => vm.device.connect(port, { timeoutMs: LONG_MS })),
    );
    expect(vm.device.connectionCount).toBeGreaterThanOrEqual(500);
    const answers = streams.map((stream, i) => {
      stream.end(`connection ${i}`);
      return readText(stream);
    });
    expect(await Promise.all(answers)).toEqual(streams.map((_, i) => `connection ${i}`));
  });

  test("that never reads stalls that connection only", async () => {
    const stalled = await connect("stall");
    stalled.on("error", () => {});
    stalled.write(Buffer.alloc(4 * MIB));
    const stream = await connect("count");
    await writeAll(stream, 16 * MIB, 64 * 1024);
    stream.end();
    expect(await readText(stream)).toBe(String(16 * MIB));
    expect(stalled.writableLength).toBe(4 * MIB);
    stalled.destroy();
  });

  test("is stalled by a reader of ours that never reads, on that connection only", async () => {
    const quiet = nextConnection();
    const sending = vm.run({ do: "source", port: quiet.port, bytes: 4 * MIB, write: 32 * 1024 });
    const stalled = await quiet.stream;
    const up = nextConnection();
    const other = vm.run({ do: "source", port: up.port, bytes: 16 * MIB, write: 32 * 1024 });
    const stream = await up.stream;
    expect(await readHash(stream)).toEqual({ bytes: 16 * MIB, sha256: patternHash(16 * MIB) });
    stream.end();
    await other;
    expect(await readHash(stalled)).toEqual({ bytes: 4 * MIB, sha256: patternHash(4 * MIB) });
    stalled.end();
    await sending;
  });

  test("connects 10,000 times and leaves nothing, on either side", { timeout: LONG_MS }, async () => {
    port++;
    const listener = vm.device.listen(port, (stream) => stream.resume().end());
    const churn = (count: number) => vm.run({ do: "churn", port, count, atOnce: 50 });
    await churn(500);
    const settle = () => new Promise((resolve) => setImmediate(resolve));
    while (vm.device.connectionCount > 1) await settle();
    const [before, ours] = [await vm.run({ do: "stats" }), readdirSync("/proc/self/fd").length];
    expect(await churn(10_000)).toEqual({ count: 10_000 });
    listener.close();
    // Only the control connection is left.
    while (vm.device.connectionCount > 1) await settle();
    const after = await vm.run({ do: "stats" });
    expect(after.descriptors).toBe(before.descriptors);
    expect(readdirSync("/proc/self/fd").length).toBe(ours);
    // A socket that stayed would be about 2 KiB of slab: 20 MiB for all. Caches of the kernel's own grow too.
    expect(Number(after.slabKib) - Number(before.slabKib)).toBeLessThan(10 * 1024);
  });

  test("that reboots resets its connections and closes the device", async () => {
    const stream = await connect("echo");
    const error = once(stream, "error");
    vm.run({ do: "reboot" }).catch(() => {});
    await vm.device.closed;
    expect(await error).toMatchObject([{ code: "ECONNRESET" }]);
    await vm.exited;
  });
});
