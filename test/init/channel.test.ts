import { once } from "node:events";
import type { Socket } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import type { EnclaveMessage, ParentMessage } from "../../format/control.ts";
import { ControlChannel } from "../../init/channel.ts";
import { type LogRecord, RecordRing } from "../../init/records.ts";
import { makeSocketPair } from "../../linux/descriptor.ts";
import { SystemError } from "../../linux/ffi.ts";
import { openStream } from "../../linux/stream.ts";

const hello = { type: "hello", protocol: 1, node: "v26", name: "test" } as const;
const last = { type: "exit", status: 0, reason: "return", lastWords: [] } as const;
const ready: EnclaveMessage = { type: "ready", uptimeMs: 5, ports: [8080] };
const record = (text: string): LogRecord => ({ type: "log", time: 1, source: "stdout", text });

interface Rig {
  readonly channel: ControlChannel;
  readonly ring: RecordRing;
  /** The parent's ends of the connections made so far. */
  readonly parents: Socket[];
  readonly obeyed: ParentMessage[];
}

function rig({ refuse = 0, capacity = 1 << 20 } = {}): Rig {
  const parents: Socket[] = [];
  const obeyed: ParentMessage[] = [];
  const ring = new RecordRing(capacity);
  let refusals = refuse;
  const channel = new ControlChannel({
    hello,
    ring,
    connect: async () => {
      if (refusals-- > 0) throw new SystemError("connect", 104);
      const [ours, theirs] = makeSocketPair();
      parents.push(openStream(theirs, { allowHalfOpen: true }));
      return openStream(ours, { allowHalfOpen: true });
    },
    onMessage: (message) => obeyed.push(message),
    onFirstConnect: () => channel.tell({ type: "phase", phase: "control", uptimeMs: 1 }),
  });
  return { channel, ring, parents, obeyed };
}

function parentOf({ parents }: Rig, index = 0): Socket {
  const parent = parents[index];
  if (parent === undefined) throw new Error(`connection ${index} was not made`);
  return parent;
}

/** Messages as they come, read on demand. */
async function* messages(parent: Socket): AsyncGenerator<EnclaveMessage, void> {
  let rest = "";
  for await (const chunk of parent.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as EnclaveMessage;
  }
}

async function take(parent: Socket, count: number): Promise<EnclaveMessage[]> {
  const taken: EnclaveMessage[] = [];
  for await (const message of messages(parent)) if (taken.push(message) === count) break;
  return taken;
}

afterEach(() => void vi.useRealTimers());

test("a parent hears hello first, then the story, then the log", async () => {
  const it = rig();
  it.ring.push(record("early"));
  it.channel.tell(ready);
  await it.channel.open();
  const heard = await take(parentOf(it), 4);
  expect(heard.map(({ type }) => type)).toEqual(["hello", "ready", "phase", "log"]);
});

test("what comes later is sent at once", async () => {
  const it = rig();
  await it.channel.open();
  await take(parentOf(it), 2);
  it.ring.push(record("late"));
  it.channel.pump();
  expect(await take(parentOf(it), 1)).toEqual([record("late")]);
});

test("a parent that does not read costs a bounded ring, and hears how much it missed", async () => {
  const it = rig({ capacity: 100_000 });
  await it.channel.open();
  for (let i = 0; i < 5_000; i++) {
    it.ring.push(record(`${i} ${"x".repeat(1000)}`));
    it.channel.pump();
  }
  const finished = it.channel.finish(last);
  let dropped = 0;
  let logs = 0;
  for await (const message of messages(parentOf(it))) {
    if (message.type === "log") {
      logs++;
      dropped += message.dropped ?? 0;
    }
    if (message.type === "exit") break;
  }
  expect(dropped).toBeGreaterThan(1_000);
  expect(logs + dropped).toBe(5_000);
  parentOf(it).end();
  await finished;
});

const offer = (sentMs: number): EnclaveMessage => ({ type: "clock", sentMs });

test("what is offered goes ahead of the log, the latest of its kind, once", async () => {
  const it = rig();
  it.ring.push(record("waits"));
  it.channel.offer(offer(1));
  it.channel.offer(offer(2));
  await it.channel.open();
  const heard = await take(parentOf(it), 4);
  expect(heard.slice(1)).toEqual([expect.objectContaining({ type: "phase" }), offer(2), record("waits")]);
  it.channel.offer(offer(3));
  expect(await take(parentOf(it), 1)).toEqual([offer(3)]);
});

test("what is offered last is told before the end", async () => {
  const it = rig();
  await it.channel.open();
  await take(parentOf(it), 2);
  it.ring.push(record("last line"));
  it.channel.offer(offer(4));
  const finished = it.channel.finish(last);
  expect(await take(parentOf(it), 3)).toEqual([offer(4), record("last line"), last]);
  parentOf(it).end();
  await finished;
});

test("messages of the parent are obeyed, unknown types ignored", async () => {
  const it = rig();
  await it.channel.open();
  parentOf(it).write(
    '{"type":"shutdown","deadlineMs":10}\n{"type":"dance"}\n{"type":"time","unixMs":5,"sentMs":1}\n',
  );
  await vi.waitFor(() => expect(it.obeyed.length).toBe(2));
  expect(it.obeyed).toEqual([
    { type: "shutdown", deadlineMs: 10 },
    { type: "time", unixMs: 5, sentMs: 1 },
  ]);
});

test.each([
  ["not JSON", "{{{\n"],
  ["a wrong field", '{"type":"shutdown","deadlineMs":"soon"}\n'],
  ["a negative time", '{"type":"time","unixMs":-1,"sentMs":1}\n'],
  ["an answer to no question", '{"type":"time","unixMs":1}\n'],
  ["a line without an end", "x".repeat(70_000)],
  ["bytes", "\xff\xfe\0\n"],
])("a hostile parent loses the connection: %s", async (_, text) => {
  const it = rig();
  await it.channel.open();
  const parent = parentOf(it);
  const { promise: lost, resolve } = Promise.withResolvers<void>();
  // A reset where bytes of the parent's were left unread.
  parent.on("error", resolve).on("end", resolve).resume();
  parent.write(text, "latin1");
  await lost;
  expect(it.obeyed).toEqual([]);
});

test("a lost connection is made again and hears the whole story, in which control happened once", async () => {
  const it = rig();
  await it.channel.open();
  it.channel.tell(ready);
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const first = parentOf(it);
  first.resume();
  first.destroy();
  await once(first, "close");
  await vi.waitFor(() => {
    vi.advanceTimersByTime(1_000);
    expect(it.parents.length).toBe(2);
  });
  vi.useRealTimers();
  it.ring.push(record("after"));
  it.channel.pump();
  const heard = await take(parentOf(it, 1), 4);
  expect(heard.map(({ type }) => type)).toEqual(["hello", "phase", "ready", "log"]);
});

test("without a parent everything goes on, and it is asked for again", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const it = rig({ refuse: 2 });
  await it.channel.open();
  it.channel.tell(ready);
  expect(it.parents.length).toBe(0);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(it.parents.length).toBe(0);
  await vi.advanceTimersByTimeAsync(2_000);
  expect(it.parents.length).toBe(1);
});

test("the end comes after all that waits, and bye ends it", async () => {
  const it = rig();
  await it.channel.open();
  for (const text of ["a", "b"]) it.ring.push(record(text));
  const finished = it.channel.finish(last);
  const heard = await take(parentOf(it), 5);
  expect(heard.slice(2)).toEqual([record("a"), record("b"), last]);
  parentOf(it).write('{"type":"bye"}\n');
  await finished;
});

test("the end does not wait for a parent that is not there, or leaves", async () => {
  const absent = rig({ refuse: 1 });
  await absent.channel.open();
  await absent.channel.finish(last);
  const leaving = rig();
  await leaving.channel.open();
  const finished = leaving.channel.finish(last);
  parentOf(leaving).destroy();
  await finished;
});
