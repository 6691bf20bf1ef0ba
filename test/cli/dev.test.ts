/** The verb `dev` without an enclave: what it refuses, what it tells, which keys it reads. test/e2e/dev.test.ts is the rest. */
import { EventEmitter } from "node:events";
import { tmpdir } from "node:os";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import type { Io, Terminal } from "../../cli/command.ts";
import { readKeys } from "../../cli/keys.ts";
import { main } from "../../cli/main.ts";
import { jsonStory, type Tell, TextStory } from "../../cli/story.ts";
import type { LoopEvent } from "../../dev/event.ts";
import { CloisterError } from "../../format/errors.ts";

/** What a verb prints, on both streams. */
async function record(run: (io: Io) => unknown): Promise<string> {
  const output = new PassThrough();
  const io: Io = {
    stdout: output,
    stderr: output,
    env: {},
    directory: tmpdir(),
    signal: new AbortController().signal,
  };
  await run(io);
  output.end();
  return await text(output);
}

const told = (events: readonly LoopEvent[], story: (io: Io) => Tell) =>
  record((io) => {
    const tell = story(io);
    for (const event of events) tell(event);
  });
const asText = (quiet: boolean) => (io: Io) => {
  const story = new TextStory(io, quiet);
  return (event: LoopEvent) => story.tell(event);
};

test("without QEMU it names the other way", async () => {
  const { PATH } = process.env;
  process.env.PATH = "/nowhere";
  try {
    const output = await record((io) => main(["dev"], io));
    expect(output).toMatch(/^error E_QEMU_MISSING: [\s\S]*`cloister dev --bare`/);
  } finally {
    process.env.PATH = PATH;
  }
});

test.each([
  [["dev", "a.ts", "b.ts"], 'found "b.ts" after "a.ts", expected one ENTRY'],
  [["dev", "--bare", "--publish", "unix:/tmp/x:8080"], "expected a TCP port"],
  [["dev", "--bare", "--inspect-port", "70000"], "--inspect-port"],
])("refuses %j", async (words, message) => {
  const output = await record((io) => main(words, io));
  expect(output).toContain("error E_USAGE");
  expect(output).toContain(message);
});

const log = (source: "stdout" | "init", line: string): LoopEvent => {
  return { type: "log", time: 0, source, level: "info", text: line, dropped: 0 };
};
const registers = { PCR0: "00", PCR1: "11", PCR2: "22" };
const events: readonly LoopEvent[] = [
  { type: "build", changed: [] },
  {
    type: "published",
    ports: [
      { address: "127.0.0.1", port: 4000, vsockPort: 8080, taken: 8080 },
      { address: "127.0.0.1", port: 9229, vsockPort: 100_002 },
    ],
    tls: true,
  },
  { type: "start", reason: "no enclave runs" },
  { type: "measured", measurements: registers },
  log("init", "of the boot"),
  { type: "phase", phase: "kernel", uptimeMs: 1234, elapsedMs: 0 },
  { type: "phase", phase: "app", uptimeMs: 2000, elapsedMs: 0 },
  log("init", "3000 is private"),
  log("stdout", "hello \u001b[31m"),
  { type: "serving", bundleMs: 12, elapsedMs: 3456 },
  { type: "build", changed: [`${tmpdir()}/src/app.ts`] },
  { type: "serving", bundleMs: 12, elapsedMs: 345 },
  { type: "failed", error: new CloisterError("E_BUNDLE", "app.ts:3: no", { details: "frame" }) },
  { type: "ended", status: 1, reason: "load", replaced: true },
];

test("a person reads lines", async () => {
  expect((await told(events, asText(false))).split("\n")).toEqual([
    "cloister: 127.0.0.1:8080 is taken by another program: a free port instead",
    "cloister: https://127.0.0.1:4000/ → vsock port 8080",
    "cloister: inspector at 127.0.0.1:9229: open chrome://inspect, or attach an editor to it",
    "cloister: starting an enclave: no enclave runs",
    "cloister: PCR0 00",
    "cloister: PCR1 11",
    "cloister: PCR2 22",
    "cloister: 3000 is private",
    "hello \\x1b[31m",
    "cloister: boot: kernel 1.23 s · app 2.00 s",
    "cloister: serving after 3.46 s, 12 ms of it to build",
    "cloister: src/app.ts changed: serving after 345 ms, 12 ms of it to build",
    "error E_BUNDLE: app.ts:3: no",
    "  frame",
    expect.stringMatching(/^ {2}why: /),
    expect.stringMatching(/^ {2}fix: /),
    "cloister: waiting for the next save",
    "cloister: the app ended: exit status 1 (load); the one before serves on",
    "",
  ]);
});

test.each([
  [0, "return", "nothing kept it running: it has no default export with a function named fetch"],
  [3, "exit", "it called process.exit()"],
  [137, "signal", 'cloister.config.ts sets how much there is, such as memory: "512M"'],
  [134, "signal", "memory ran out, most likely"],
] as const)("an end with status %d by %s is told with what to do", async (status, reason, hint) => {
  const ended: LoopEvent = { type: "ended", status, reason, replaced: false };
  expect(await told([ended], asText(true))).toContain(hint);
});

test("quiet leaves the app's lines, errors and ends", async () => {
  const lines = (await told(events, asText(true))).split("\n");
  expect(lines[0]).toContain("is taken");
  expect(lines[1]).toBe("hello \\x1b[31m");
  expect(lines[2]).toContain("error E_BUNDLE");
  expect(lines.join("\n")).not.toContain("PCR0");
});

test("a program reads one JSON value a line, errors with their codes", async () => {
  const values = (await told(events, jsonStory))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(values).toHaveLength(events.length);
  expect(values.find(({ type }) => type === "failed").error).toEqual({
    code: "E_BUNDLE",
    message: "app.ts:3: no",
    details: "frame",
  });
});

test("keys are read where there is a terminal, and the terminal is as it was afterwards", () => {
  const modes: boolean[] = [];
  const keys: string[] = [];
  const terminal = Object.assign(new EventEmitter(), {
    isTTY: true,
    setRawMode: (isRaw: boolean) => modes.push(isRaw),
    resume: () => {},
    pause: () => {},
  }) as unknown as Terminal & EventEmitter;
  {
    using _reading = readKeys(terminal, (key) => keys.push(key));
    terminal.emit("data", "rH");
    terminal.emit("data", "\u0003");
  }
  terminal.emit("data", "x");
  expect([keys, modes]).toEqual([
    ["r", "h", "q"],
    [true, false],
  ]);
  expect(readKeys(new PassThrough(), () => {})).toBeUndefined();
});
