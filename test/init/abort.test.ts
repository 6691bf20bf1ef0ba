import { fork } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, writeSync } from "node:fs";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { awaitGivingUp, GivingUp } from "../../init/abort.ts";

const { report } = process;
const { writeReport, filename, reportOnFatalError } = report;
afterEach(() => void Object.assign(report, { writeReport, filename, reportOnFatalError }));

/** A pipe as Node's report finds it, and its other end. */
function rig() {
  const descriptor = awaitGivingUp();
  const it = new GivingUp(descriptor);
  return { it, open: () => openSync(report.filename, "w"), close: () => closeSync(descriptor) };
}

const header = (trigger: string) =>
  `{"header":{"reportVersion":5,"event":"x","trigger":"${trigger}","filename":"x"`;

test.each([
  ["OOMError", true],
  ["FatalError", true],
  ["Exception", false],
  ["Signal", false],
  ["JavaScript API", false],
])("a report of %s: %s", (trigger, hasGivenUp) => {
  const { it, open, close } = rig();
  expect(it.check(true)).toBe(false);
  const writer = open();
  writeSync(writer, header(trigger));
  expect(it.check(false)).toBe(hasGivenUp);
  closeSync(writer);
  close();
});

test("a report that is harmless is read to its end, and the next one is looked at again", () => {
  const { it, open, close } = rig();
  const first = open();
  writeSync(first, header("Signal"));
  expect(it.check(true)).toBe(false);
  for (let i = 0; i < 10; i++) {
    writeSync(first, '"trigger":"OOMError"'.padEnd(4096));
    expect(it.check(true)).toBe(false);
  }
  closeSync(first);
  expect(it.check(true)).toBe(false);
  const second = open();
  writeSync(second, header("OOMError"));
  expect(it.check(false)).toBe(true);
  closeSync(second);
  close();
});

test("a thread that waits for others before it writes has given up too, once it stands still", () => {
  const { it, open, close } = rig();
  const writer = open();
  expect([it.check(false), it.check(true)]).toEqual([false, true]);
  closeSync(writer);
  expect(it.check(true)).toBe(false);
  close();
});

test("Node out of heap waits until it was seen", async () => {
  const script = new URL("gives-up.ts", import.meta.url);
  const child = fork(script, { execArgv: ["--experimental-ffi", "--max-old-space-size=60"], silent: true });
  const [stdout] = await Promise.all([text(child.stdout as NodeJS.ReadableStream), once(child, "close")]);
  expect(stdout).toBe("seen\n");
});
