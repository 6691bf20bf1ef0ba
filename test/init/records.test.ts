import fc from "fast-check";
import { expect, test } from "vitest";
import { LOG_TEXT_MAX } from "../../format/control.ts";
import { LastWords, type Line, LineCutter, type LogRecord, RecordRing } from "../../init/records.ts";

function cut(chunks: readonly Uint8Array[]): Line[] {
  const lines: Line[] = [];
  const cutter = new LineCutter((line) => lines.push(line));
  for (const chunk of chunks) cutter.push(chunk);
  cutter.end();
  return lines;
}

const texts = (chunks: readonly Uint8Array[]) => cut(chunks).map(({ text }) => text);

const record = (text: string): LogRecord => ({ type: "log", time: 1, source: "stdout", text });

test.each([
  ["lines", ["one\ntwo\n"], ["one", "two"]],
  ["a line over several chunks", ["on", "e\nt", "wo"], ["one", "two"]],
  ["empty lines", ["\n\na\n"], ["", "", "a"]],
  ["no newline at the end", ["last"], ["last"]],
  ["nothing", [""], []],
])("cuts %s", (_, chunks, lines) => {
  expect(texts(chunks.map((chunk) => Buffer.from(chunk)))).toEqual(lines);
});

test("a character over two chunks stays whole", () => {
  const bytes = Buffer.from("é€😀\n");
  const chunks = [...bytes].map((byte) => Uint8Array.of(byte));
  expect(texts(chunks)).toEqual(["é€😀"]);
});

test("a chunk's memory may be used again", () => {
  const chunk = Buffer.from("first");
  const lines: string[] = [];
  const cutter = new LineCutter(({ text }) => lines.push(text));
  cutter.push(chunk);
  chunk.fill("x");
  cutter.push(Buffer.from("\n"));
  expect(lines).toEqual(["first"]);
});

test("a long line becomes parts that say so, each of bounded bytes, which join to the line", () => {
  const long = fc.oneof(
    fc.constant("x".repeat(3 * LOG_TEXT_MAX + 1)),
    fc.constant("\0".repeat(LOG_TEXT_MAX)),
    fc.constant("😀".repeat(LOG_TEXT_MAX)),
    fc.string({ unit: "binary", minLength: LOG_TEXT_MAX - 2, maxLength: 2 * LOG_TEXT_MAX }),
  );
  fc.assert(
    fc.property(long, fc.integer({ min: 1, max: 70_000 }), (text, step) => {
      const line = text.replaceAll("\n", "·").toWellFormed();
      const bytes = Buffer.from(`${line}\nnext\n`);
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += step) chunks.push(bytes.subarray(at, at + step));
      const lines = cut(chunks);
      expect(lines.pop()).toEqual({ text: "next", isPart: false });
      expect(lines.map(({ text }) => text).join("")).toBe(line);
      for (const { text, isPart } of lines) {
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(LOG_TEXT_MAX);
        expect(isPart).toBe(Buffer.byteLength(line) > LOG_TEXT_MAX);
      }
    }),
    { numRuns: 25 },
  );
});

test("any bytes are cut without an error, and none of a line's memory is kept", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (chunks) => {
      const lines = cut(chunks);
      const newlines = chunks.reduce((sum, chunk) => sum + chunk.filter((byte) => byte === 10).length, 0);
      expect(lines.length - newlines).toBeOneOf([0, 1]);
    }),
  );
});

test("the ring gives records back in order", () => {
  const ring = new RecordRing(10_000);
  ring.push(record("a"));
  ring.push(record("b"));
  expect([ring.shift()?.text, ring.shift()?.text, ring.shift()]).toEqual(["a", "b", undefined]);
});

test("a full ring drops the oldest, and the next record says how many", () => {
  const ring = new RecordRing(350);
  for (const text of ["a", "b", "c", "d", "e"]) ring.push(record(text));
  expect(ring.shift()).toEqual({ ...record("c"), dropped: 2 });
  expect(ring.shift()).toEqual(record("d"));
  expect(ring.totals).toEqual({ pushed: 5, dropped: 2 });
});

test("a record larger than the ring is kept alone", () => {
  const ring = new RecordRing(10);
  ring.push(record("small"));
  ring.push(record("x".repeat(1000)));
  expect(ring.shift()).toMatchObject({ dropped: 1, text: "x".repeat(1000) });
  expect(ring.shift()).toBeUndefined();
});

test("records in and out are none lost but those counted", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.string(), fc.constant(undefined))), (steps) => {
      const ring = new RecordRing(400);
      let pushed = 0;
      let accounted = 0;
      const take = () => {
        const taken = ring.shift();
        if (taken !== undefined) accounted += 1 + (taken.dropped ?? 0);
        return taken;
      };
      for (const text of steps) {
        if (text === undefined) take();
        else {
          ring.push(record(text));
          pushed++;
        }
      }
      while (take() !== undefined);
      expect(accounted).toBe(pushed);
    }),
  );
});

test("a million records pass without moving those that wait", () => {
  const ring = new RecordRing(100 * 1024);
  const start = performance.now();
  for (let i = 0; i < 1_000_000; i++) ring.push(record("x"));
  expect(performance.now() - start).toBeLessThan(10_000);
  expect(ring.shift()?.dropped).toBeGreaterThan(990_000);
});

test("last words are the last twenty lines", () => {
  const words = new LastWords();
  for (let i = 0; i < 25; i++) words.push(String(i));
  expect(words.lines()).toEqual(Array.from({ length: 20 }, (_, i) => String(i + 5)));
});
