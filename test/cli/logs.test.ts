import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { stripVTControlCharacters } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { jsonEvents, textEvents } from "../../cli/events.ts";
import { logLine } from "../../cli/logline.ts";
import { logs } from "../../cli/logs.ts";
import { errorText } from "../../cli/report.ts";
import { CloisterError } from "../../format/errors.ts";
import { LOG_LEVELS } from "../../format/log.ts";
import { identify } from "../../launcher/identity.ts";
import type { LogEvent } from "../../launcher/logs.ts";
import { Registry } from "../../launcher/registry.ts";
import { Shelf } from "../../launcher/shelf.ts";
import type { SupervisorEvent } from "../../launcher/supervisor.ts";

const event = (event: Partial<LogEvent>): LogEvent => ({
  type: "log",
  time: Date.UTC(2026, 10, 21, 6, 31, 2, 123),
  source: "stdout",
  level: "info",
  text: "hello",
  dropped: 0,
  ...event,
});

async function shown(show: "json" | "text", ...events: SupervisorEvent[]): Promise<string> {
  const stream = new PassThrough();
  const tell = show === "json" ? jsonEvents(stream) : textEvents(stream, true);
  for (const event of events) tell(event);
  stream.end();
  return await text(stream);
}

test.each([
  [{}, "2026-11-21T06:31:02.123Z info  hello"],
  [{ level: "error" }, "2026-11-21T06:31:02.123Z error hello"],
  [{ source: "init", level: "warn", text: "mine" }, "2026-11-21T06:31:02.123Z warn  init: mine"],
  [
    { text: '{"level":30,"time":1,"msg":"listening","port":8080}' },
    '2026-11-21T06:31:02.123Z info  listening {"port":8080}',
  ],
  [{ text: '{"severity":"INFO","message":"only"}' }, "2026-11-21T06:31:02.123Z info  only"],
  [{ text: '{"port":8080}' }, '2026-11-21T06:31:02.123Z info  {"port":8080}'],
  [{ text: '{"msg":{"a":1}}' }, '2026-11-21T06:31:02.123Z info  {"msg":{"a":1}}'],
  [{ text: "\u001b[2J" }, "2026-11-21T06:31:02.123Z info  \\x1b[2J"],
  [{ text: '{"msg":"\\u001b[2J"}' }, "2026-11-21T06:31:02.123Z info  \\x1b[2J"],
  [{ time: Number.MAX_VALUE }, "+275760-09-13T00:00:00.000Z info  hello"],
] as const)("%j as text", (record, line) => expect(logLine(event(record), false)).toBe(line));

test.each(LOG_LEVELS)("on a terminal %s has a color, and says the same", (level) => {
  const line = logLine(event({ level }), true);
  expect(line).toContain("\u001b[");
  expect(stripVTControlCharacters(line)).toBe(logLine(event({ level }), false));
});

test("as JSON a line that is an object is a value, any other a string", async () => {
  const lines = await shown(
    "json",
    event({ text: '{"a":[1]}' }),
    event({ text: "[1]" }),
    event({ dropped: 2 }),
  );
  const values = lines.trimEnd().split("\n");
  expect(values.map((line) => JSON.parse(line))).toEqual([
    { type: "log", time: event({}).time, source: "stdout", level: "info", dropped: 0, json: { a: [1] } },
    event({ text: "[1]" }),
    event({ dropped: 2 }),
  ]);
});

test("an object that is nested as deep as a record can be", async () => {
  const deep = `${'{"a":'.repeat(12_000)}1${"}".repeat(12_000)}`;
  expect(await shown("json", event({ text: deep }))).toContain(`"json":${deep}`);
  expect(logLine(event({ text: deep }), false)).toContain(deep);
});

test("while it runs, the app's lines are as it wrote them, and losses are said", async () => {
  expect(await shown("text", event({ dropped: 3 }), event({ source: "init", text: "mine" }))).toBe(
    "cloister: 3 log records were dropped here\nhello\ninit: mine\n",
  );
});

test("what an enclave says drives no terminal: neither as a fault nor as an error's details", async () => {
  expect(await shown("text", { type: "fault", reason: "got \u001b[2J" })).toBe(
    "cloister: control channel: got \\x1b[2J\n",
  );
  const details = "one\r\n\u001b]0;two\u0007\n";
  const lines = errorText(new CloisterError("E_ENCLAVE_CRASHED", "app: gone", { details }), false).split(
    "\n",
  );
  expect(lines.slice(1, 3)).toEqual(["  one", "  \\x1b]0;two\\x07"]);
});

describe("cloister logs", () => {
  const directory = mkdtempSync(join(tmpdir(), "cloister-logs-"));
  const fields = { eif: "/app.eif", emulated: true, debug: false };

  beforeAll(() => {
    const identity = identify(process.pid);
    if (identity === undefined) throw new Error("this process is not there");
    using shelf = new Shelf(
      new Registry(directory).claim({ name: "app", isDefault: true }, identity, fields),
    );
    for (const level of LOG_LEVELS) shelf.log(event({ level, text: level }));
    shelf.log({ type: "fault", reason: "broken" });
    shelf.log(event({ level: "error", text: '{"msg":"last","n":1}' }));
  });

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  async function run(values: Parameters<typeof logs.run>[2], isTTY = false): Promise<string[]> {
    const stdout = Object.assign(new PassThrough(), { isTTY });
    const signal = new AbortController().signal;
    const io = { stdout, stderr: new PassThrough(), env: { CLOISTER_RUN_DIR: directory }, directory, signal };
    expect(await logs.run(io, ["app"], values)).toBe(0);
    stdout.end();
    return (await text(stdout)).trimEnd().split("\n");
  }

  const shownTexts = (lines: string[]) => lines.map((line) => line.replace(/^\S+Z \w+ +/, ""));

  test("shows all, and of a level what is as urgent and nothing else", async () => {
    const all = [...LOG_LEVELS, "cloister: control channel: broken", 'last {"n":1}'];
    expect(shownTexts(await run({}))).toEqual(all);
    expect(shownTexts(await run({ level: "trace" }))).toEqual([...LOG_LEVELS, 'last {"n":1}']);
    expect(shownTexts(await run({ level: "error" }))).toEqual(["error", "fatal", 'last {"n":1}']);
    expect(shownTexts(await run({ level: "error", tail: "2" }))).toEqual(["fatal", 'last {"n":1}']);
  });

  test("as JSON", async () => {
    const [first, last] = (await run({ level: "error", json: true, tail: "2" })).map((line) =>
      JSON.parse(line),
    );
    expect(first).toMatchObject({ level: "fatal", text: "fatal" });
    expect(last).toMatchObject({ level: "error", json: { msg: "last", n: 1 }, at: expect.any(Number) });
  });

  test("colors are for terminals", async () => {
    expect((await run({})).join()).not.toContain("\u001b");
    expect((await run({}, true)).join()).toContain("\u001b[");
  });

  test("a level that there is not", async () => {
    await expect(run({ level: "loud" })).rejects.toThrow(
      "--level: got loud, expected trace | debug | info | warn | error | fatal",
    );
  });
});
