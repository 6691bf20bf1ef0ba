import { once } from "node:events";
import { openSync } from "node:fs";
import type { Socket } from "node:net";
import { expect, test } from "vitest";
import { closeDescriptor, makePipe, makeSocketPair, replaceDescriptor } from "../../linux/descriptor.ts";
import { descriptorOf, openStream } from "../../linux/stream.ts";

function socketPair(options = {}): [Socket, Socket] {
  const [a, b] = makeSocketPair();
  return [openStream(a, options), openStream(b, options)];
}

// Not stream/consumers: those destroy a half-open stream at its end.
async function collect(stream: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "end");
  return Buffer.concat(chunks).toString();
}

test("bytes pass both ways, with half-close", async () => {
  const [a, b] = socketPair({ allowHalfOpen: true });
  const question = collect(b);
  const answer = collect(a);
  a.end("question");
  expect(await question).toBe("question");
  b.end("answer");
  expect(await answer).toBe("answer");
});

test("a reader that stalls holds the writer back", async () => {
  const [a, b] = socketPair({ allowHalfOpen: true });
  const chunk = Buffer.alloc(1 << 20, 7);
  expect(a.write(chunk)).toBe(false);
  b.pause();
  let received = 0;
  b.on("data", (data: Buffer) => {
    received += data.length;
  });
  b.resume();
  await once(a, "drain");
  a.end();
  await once(b, "end");
  expect(received).toBe(chunk.length);
  b.destroy();
});

test("a peer that closed is an error with Node's code", async () => {
  const [a, b] = socketPair();
  b.destroy();
  await once(b, "close");
  a.write("x");
  const [error] = await once(a, "error");
  expect(error).toMatchObject({ code: "EPIPE" });
});

test("a pipe's read end ends when its writers are gone", async () => {
  const { readEnd, writeEnd } = makePipe();
  const reader = openStream(readEnd, { writable: false });
  const writer = openStream(writeEnd, { readable: false });
  writer.write("line\n");
  const [data] = await once(reader, "data");
  expect(String(data)).toBe("line\n");
  writer.destroy();
  await once(reader, "end");
});

test("the descriptor is known while the stream is open, and closed with it", async () => {
  const [a, b] = makeSocketPair();
  const stream = openStream(a);
  expect(descriptorOf(stream)).toBe(a);
  stream.destroy();
  await once(stream, "close");
  expect(descriptorOf(stream)).toBe(-1);
  expect(() => replaceDescriptor(a, b)).toThrow("EBADF");
  closeDescriptor(b);
});

test("what cannot be polled is refused, and stays the caller's", () => {
  expect(() => openStream(9999)).toThrow(/uv_pipe_open\(9999\): EBADF/);
  const file = openSync("/dev/null", "r");
  closeDescriptor(file);
});
