import { expect, test } from "vitest";
import { CONTROL_LINE_MAX, encodeMessage, LOG_TEXT_MAX } from "../../format/control.ts";
import { Censor } from "../../init/censor.ts";
import { runWithin } from "../../init/guard.ts";
import { Journal } from "../../init/journal.ts";
import { type LogRecord, RecordRing } from "../../init/records.ts";

function journal(redact: readonly string[] = []) {
  const ring = new RecordRing(1 << 30);
  const shown: string[] = [];
  const it = new Journal({ ring, redact, onLine: (source, text) => shown.push(`${source}: ${text}`) });
  const all = () => {
    const records: LogRecord[] = [];
    for (let record = ring.shift(); record !== undefined; record = ring.shift()) records.push(record);
    return records;
  };
  return { it, shown, all };
}

test("levels: the line's own, else its source's, and init's as it says", () => {
  const { it, all } = journal();
  it.output("stdout").push(Buffer.from('plain\n{"level":20}\n'));
  it.output("stderr").push(Buffer.from('plain\n{"severity":"WARNING"}\n'));
  it.say("mine");
  it.say("careful", "warn");
  expect(all().map(({ source, level }) => `${source} ${level}`)).toEqual([
    "stdout info",
    "stdout debug",
    "stderr error",
    "stderr warn",
    "init info",
    "init warn",
  ]);
});

test("what is hidden is hidden from the console and the last words too", () => {
  const { it, shown, all } = journal(["/sk_\\d+/"]);
  const output = it.output("stderr");
  output.push(Buffer.from("with sk_"));
  output.push(Buffer.from("12345\nlast sk_1"));
  output.end();
  it.say("init met sk_9");
  const texts = ["with [redacted]", "last [redacted]", "init met [redacted]"];
  expect(all().map(({ text }) => text)).toEqual(texts);
  expect(shown).toEqual(["stderr: with [redacted]", "stderr: last [redacted]", "init: init met [redacted]"]);
  expect(it.lastWords.lines()).toEqual(texts.slice(0, 2));
});

test("JSON stays one record; a longer line becomes several; each fits a control message", () => {
  const { it, all } = journal(["/[0-9]/"]);
  const quotes = JSON.stringify({ a: '"'.repeat(LOG_TEXT_MAX / 2 - 10) });
  const digits = JSON.stringify({ a: Array.from({ length: LOG_TEXT_MAX / 4 }, () => 1) });
  for (const line of [quotes, digits, "x".repeat(LOG_TEXT_MAX + 1)]) {
    const output = it.output("stdout");
    output.push(Buffer.from(`${line}\n`));
    const records = all();
    for (const record of records) expect(encodeMessage(record).length).toBeLessThanOrEqual(CONTROL_LINE_MAX);
    if (line === quotes) expect(records.map(({ text }) => text)).toEqual([quotes]);
    else expect(records.length).toBeGreaterThan(1);
  }
});

test("parts of a long line are withheld where something could be hidden in them", () => {
  const { it, all } = journal(["password"]);
  const line = JSON.stringify({ big: "x".repeat(LOG_TEXT_MAX), password: "hunter2" });
  it.output("stdout").push(Buffer.from(`${line}\nnext\n`));
  const texts = all().map(({ text }) => text);
  expect(texts.slice(0, -1)).toEqual(
    texts.slice(0, -1).map(() => expect.stringMatching(/^\[redacted: part/)),
  );
  expect(texts.at(-1)).toBe("next");
});

const EVIL = "/^(a+)+$/";
const lines = (...texts: string[]) => texts.map((text) => ({ text, isPart: false }));

test("a pattern that never ends costs its line, within a time", () => {
  const start = performance.now();
  const evil = `${"a".repeat(50)}b`;
  expect(new Censor([EVIL]).texts(lines("before", evil, "after", "aaa"))).toEqual([
    "before",
    "[redacted: the patterns of redact took too long]",
    "after",
    "[redacted]",
  ]);
  expect(performance.now() - start).toBeLessThan(5_000);
});

test("lines that take a while each are not withheld for what they take together", () => {
  // 2^17 steps: about two milliseconds.
  const slow = Array.from({ length: 100 }, () => `${"a".repeat(17)}b`);
  expect(new Censor([EVIL], 60_000).texts(lines(...slow))).toEqual(slow);
});

test("many such lines cost no more than the time for one read", () => {
  const start = performance.now();
  const evil = Array.from({ length: 1_000 }, () => `${"a".repeat(50)}b`);
  const texts = new Censor([EVIL]).texts(lines(...evil, "innocent"));
  expect(texts.length).toBe(1_001);
  expect(texts.every((text) => text.startsWith("[redacted: the patterns"))).toBe(true);
  expect(performance.now() - start).toBeLessThan(10_000);
});

test("what runs within its time is done, and what it throws is thrown", () => {
  let done = false;
  const finish = () => {
    done = true;
  };
  expect([runWithin(1_000, finish), done]).toEqual([true, true]);
  const fail = () => {
    throw new RangeError("own");
  };
  expect(() => runWithin(1_000, fail)).toThrow(RangeError);
  expect(
    runWithin(10, () => {
      for (;;);
    }),
  ).toBe(false);
});
