/**
 * PID 1 of the test VM: does what the test asks for over a control connection, one JSON command a line, one JSON answer
 * each. Runs unbundled on Node's type stripping.
 */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { mount } from "../../linux/mount.ts";
import { restartMachine } from "../../linux/reboot.ts";
import { connectVsock, listenVsock, type VsockListener, type VsockSocket } from "../../linux/vsock.ts";

export const CONTROL_PORT = 100;

export type Command =
  /** Connect, read to the end, close. Answers how many bytes, and where asked for whether they are the pattern. */
  | { readonly do: "sink"; readonly port: number; readonly verify: boolean }
  /** Connect, send `bytes` of the pattern in writes of `write`, shut down, read to the end. */
  | { readonly do: "source"; readonly port: number; readonly bytes: number; readonly write: number }
  /** Connect `count` at once; each sends its number, and wants it back before it closes. */
  | { readonly do: "many"; readonly port: number; readonly count: number }
  /** Connect and close `count` times, `at_once` at a time. */
  | { readonly do: "churn"; readonly port: number; readonly count: number; readonly atOnce: number }
  /** Listen: `echo` sends back what comes, `stall` never reads, `count` answers after the end how many bytes came. */
  | { readonly do: "listen"; readonly port: number; readonly mode: "echo" | "stall" | "count" }
  | { readonly do: "refused"; readonly cid: number; readonly port: number }
  | { readonly do: "stats" }
  | { readonly do: "reboot" };

export type Answer = Record<string, number | string | boolean>;

/** 1 MiB that no two offsets share, the same on both sides. */
export function pattern(): Buffer {
  const block = Buffer.alloc(1024 * 1024);
  let state = 0x9e37_79b9;
  for (let i = 0; i < block.length; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    block.writeUInt32LE(state, i);
  }
  return block;
}

const PARENT = 3;
const rawWrite = Socket.prototype._write;

/** Writes go to the kernel as they are, whatever their size: the device is what is tested, not the cap above it. */
function uncapped(socket: VsockSocket): VsockSocket {
  socket._write = rawWrite;
  return socket;
}

async function sink(socket: Socket, verify: boolean): Promise<Answer> {
  const block = pattern();
  const start = performance.now();
  let bytes = 0;
  let isIntact = true;
  for await (const data of socket) {
    const chunk = data as Buffer;
    for (let at = 0; verify && at < chunk.length; ) {
      const offset = (bytes + at) % block.length;
      const length = Math.min(chunk.length - at, block.length - offset);
      if (chunk.compare(block, offset, offset + length, at, at + length) !== 0) isIntact = false;
      at += length;
    }
    bytes += chunk.length;
  }
  return { bytes, isIntact, ms: performance.now() - start };
}

async function source(port: number, bytes: number, write: number): Promise<Answer> {
  const socket = uncapped(await connectVsock({ cid: PARENT, port }));
  const block = pattern();
  const start = performance.now();
  for (let sent = 0; sent < bytes; ) {
    const offset = sent % block.length;
    const chunk = block.subarray(offset, offset + Math.min(write, block.length - offset, bytes - sent));
    sent += chunk.length;
    if (!socket.write(chunk)) await new Promise((resolve) => socket.once("drain", resolve));
  }
  socket.end();
  let answer = 0;
  for await (const chunk of socket) answer += (chunk as Buffer).length;
  return { bytes, answer, ms: performance.now() - start };
}

async function many(port: number, count: number): Promise<Answer> {
  const sockets = await Promise.all(Array.from({ length: count }, () => connectVsock({ cid: PARENT, port })));
  const answers = await Promise.all(
    sockets.map(async (socket, i) => {
      socket.end(`connection ${i}`);
      const chunks: Buffer[] = [];
      for await (const chunk of socket) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks).toString() === `connection ${i}`;
    }),
  );
  return { count: answers.filter((isRight) => isRight).length };
}

async function churn(port: number, count: number, atOnce: number): Promise<Answer> {
  let done = 0;
  let started = 0;
  const worker = async () => {
    while (started < count) {
      started++;
      const socket = await connectVsock({ cid: PARENT, port });
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.end();
      socket.resume();
      await closed;
      done++;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return { count: done };
}

function answerAfterEnd(socket: VsockSocket): void {
  let bytes = 0;
  socket.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  socket.on("end", () => socket.end(String(bytes)));
}

const listeners: VsockListener[] = [];
const stalled: VsockSocket[] = [];

function listen(port: number, mode: "echo" | "stall" | "count"): Answer {
  const listener = listenVsock({ port }, (socket) => {
    socket.on("error", () => {});
    if (mode === "echo") uncapped(socket).pipe(socket);
    else if (mode === "stall") stalled.push(socket);
    else answerAfterEnd(socket);
  });
  listeners.push(listener);
  return { port };
}

async function refused(cid: number, port: number): Promise<Answer> {
  const start = performance.now();
  try {
    const socket = await connectVsock({ cid, port });
    socket.destroy();
    return { code: "", ms: performance.now() - start };
  } catch (error) {
    return { code: (error as NodeJS.ErrnoException).code ?? String(error), ms: performance.now() - start };
  }
}

function stats(): Answer {
  const memory = readFileSync("/proc/meminfo", "utf8");
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    slabKib: Number(/^SUnreclaim:\s+(\d+)/m.exec(memory)?.[1] ?? 0),
    cpus: Number(readFileSync("/proc/cpuinfo", "utf8").match(/^processor/gm)?.length ?? 0),
  };
}

async function run(command: Command): Promise<Answer> {
  switch (command.do) {
    case "sink":
      return sink(await connectVsock({ cid: PARENT, port: command.port }), command.verify);
    case "source":
      return source(command.port, command.bytes, command.write);
    case "many":
      return many(command.port, command.count);
    case "churn":
      return churn(command.port, command.count, command.atOnce);
    case "listen":
      return listen(command.port, command.mode);
    case "refused":
      return refused(command.cid, command.port);
    case "stats":
      return stats();
    case "reboot":
      return restartMachine() as never;
  }
}

async function main(): Promise<void> {
  const flags = 0n;
  mkdirSync("/proc", { recursive: true });
  mount({ source: "proc", target: "/proc", type: "proc", flags, data: "" });
  const control = await connectVsock({ cid: PARENT, port: CONTROL_PORT });
  for await (const line of createInterface({ input: control })) {
    const command = JSON.parse(line) as Command & { id: number };
    // Commands run side by side: a stalled one must not stop the others.
    run(command).then(
      (answer) => control.write(`${JSON.stringify({ id: command.id, answer })}\n`),
      (error) => control.write(`${JSON.stringify({ id: command.id, error: String(error) })}\n`),
    );
  }
  restartMachine();
}

if (process.pid === 1) await main();
