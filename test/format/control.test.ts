import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CONTROL_LINE_MAX,
  type EnclaveMessage,
  encodeMessage,
  encodeMessages,
  LOG_TEXT_MAX,
  MessageDecoder,
  type ParentMessage,
  readEnclaveMessage,
  readParentMessage,
  splitLogText,
} from "../../format/control.ts";
import type { EnclaveStats } from "../../format/stats.ts";
import { concat } from "../../format/struct.ts";
import { refusal, utf8 } from "./vectors.ts";

const stats: EnclaveStats = {
  uptimeMs: 5000.5,
  cpuMs: 812,
  loopDelayP50Ms: 0.02,
  loopDelayP99Ms: 1.5,
  loopDelayMaxMs: 12,
  stalledMs: 0,
  rssBytes: 90_000_000,
  heapUsedBytes: 12_000_000,
  memoryAvailableBytes: 100_000_000,
  memoryTotalBytes: 180_000_000,
  egressAllowed: 3,
  egressDenied: 1,
  logRecords: 17,
  logDropped: 0,
  clockSkewMs: -0.25,
  clockErrorMs: 1.75,
};
const enclaveMessages: EnclaveMessage[] = [
  { type: "hello", protocol: 1, node: "v26.10.0", name: "hello" },
  { type: "phase", phase: "init", uptimeMs: 812.25 },
  { type: "ready", uptimeMs: 1000, ports: [8080, 4294967294] },
  { type: "log", time: 1_700_000_000_000, source: "stdout", text: "grüße\n\u2028" },
  { type: "log", time: 1, source: "stderr", level: "warn", text: "", dropped: 3 },
  { type: "stats", stats },
  { type: "clock", sentMs: 5000.25 },
  { type: "exit", status: 255, reason: "exception", lastWords: ["Error: x", "    at app.ts:1"] },
];
const parentMessages: ParentMessage[] = [
  { type: "shutdown", deadlineMs: 5000 },
  { type: "time", unixMs: 1_700_000_000_000, sentMs: 5000.25 },
  { type: "bye" },
];

function enclaveDecoder(): { decoder: MessageDecoder<EnclaveMessage>; messages: EnclaveMessage[] } {
  const messages: EnclaveMessage[] = [];
  return { decoder: new MessageDecoder(readEnclaveMessage, (message) => messages.push(message)), messages };
}

function decodeParent(bytes: Uint8Array): ParentMessage[] {
  const messages: ParentMessage[] = [];
  new MessageDecoder(readParentMessage, (message) => messages.push(message)).push(bytes);
  return messages;
}

test("one line of JSON for each message", () => {
  expect(new TextDecoder().decode(encodeMessage(enclaveMessages[1] as EnclaveMessage))).toBe(
    '{"type":"phase","phase":"init","uptimeMs":812.25}\n',
  );
});

test("reads back what was written, whole and byte by byte", () => {
  const bytes = concat(enclaveMessages.map(encodeMessage));
  const { decoder, messages } = enclaveDecoder();
  decoder.push(bytes);
  for (const byte of bytes) decoder.push(Uint8Array.of(byte));
  expect(messages).toEqual([...enclaveMessages, ...enclaveMessages]);
  expect(decodeParent(concat(parentMessages.map(encodeMessage)))).toEqual(parentMessages);
});

test("messages together are the same lines, of about the bytes that are enough", () => {
  const waiting = [...enclaveMessages, ...enclaveMessages];
  const next = () => waiting.shift();
  const first = encodeMessages(next, 100);
  expect(first.length).toBeGreaterThanOrEqual(100);
  expect(waiting.length).toBeGreaterThan(enclaveMessages.length);
  const { decoder, messages } = enclaveDecoder();
  for (let lines = first; lines.length > 0; lines = encodeMessages(next, 100)) decoder.push(lines);
  expect(messages).toEqual([...enclaveMessages, ...enclaveMessages]);
});

test("does not depend on how bytes are cut", () => {
  const text = fc.string({ unit: "binary", maxLength: 50 });
  const message = fc.oneof(
    fc.constantFrom(...enclaveMessages),
    text.map((text): EnclaveMessage => ({ type: "log", time: 0, source: "init", text })),
    fc
      .array(text)
      .map((lastWords): EnclaveMessage => ({ type: "exit", status: 0, reason: "return", lastWords })),
  );
  const cuts = fc.array(fc.nat({ max: 100 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 8 }), cuts, (sent, cuts) => {
      const bytes = concat(sent.map(encodeMessage));
      const { decoder, messages } = enclaveDecoder();
      const chunk = new Uint8Array(100);
      let round = 0;
      for (let offset = 0; offset < bytes.length; round++) {
        const piece = bytes.subarray(offset, offset + (cuts[round % cuts.length] ?? 0) + 1);
        // The caller may use its buffer again.
        chunk.fill(0x7b);
        const reused =
          piece.length <= chunk.length ? chunk.subarray(0, piece.length) : new Uint8Array(piece.length);
        reused.set(piece);
        decoder.push(reused);
        chunk.fill(0x7b);
        offset += piece.length;
      }
      expect(messages).toEqual(sent);
    }),
  );
});

test("ignores types and fields it does not know", () => {
  expect(decodeParent(utf8('{"type":"later","x":1}\n{"type":"bye","more":[]}\n'))).toEqual([{ type: "bye" }]);
});

describe("hostile lines", () => {
  test.each([
    ["", 'control message: got "" (Unexpected end of JSON input), expected JSON'],
    ["null", "control message: got null, expected an object"],
    ["[]", "control message: got an array of 0, expected an object"],
    ["{}", "control message: type: got nothing, expected a string"],
    ['{"type":7}', "control message: type: got 7, expected a string"],
    ['{"__proto__":{"type":"ready"}}', "control message: type: got nothing, expected a string"],
    ['{"type":"hello","protocol":2,"node":"","name":""}', "control message: protocol: got 2, expected 1..1"],
    [
      '{"type":"phase","phase":"late","uptimeMs":1}',
      'control message: phase: got "late", expected kernel | init | heartbeat | control | app | ready',
    ],
    [
      '{"type":"phase","phase":"init","uptimeMs":-1}',
      "control message: uptimeMs: got -1, expected milliseconds",
    ],
    [
      '{"type":"phase","phase":"init","uptimeMs":1e999}',
      "control message: uptimeMs: got Infinity, expected milliseconds",
    ],
    [
      '{"type":"ready","uptimeMs":1,"ports":[1,0]}',
      "control message: ports[1]: got 0, expected 1..4294967294",
    ],
    [
      '{"type":"ready","uptimeMs":1,"ports":{"length":1}}',
      "control message: ports: got an object, expected an array",
    ],
    [
      '{"type":"log","time":1,"source":"disk","text":""}',
      'control message: source: got "disk", expected stdout | stderr | init',
    ],
    [
      '{"type":"log","time":1,"source":"stdout","level":"loud","text":""}',
      'control message: level: got "loud", expected trace | debug | info | warn | error | fatal',
    ],
    ['{"type":"log","time":1,"source":"stdout"}', "control message: text: got nothing, expected a string"],
    [
      '{"type":"log","time":1,"source":"stdout","text":"","dropped":-1}',
      "control message: dropped: got -1, expected 0..9007199254740991",
    ],
    [
      '{"type":"exit","status":256,"reason":"exit","lastWords":[]}',
      "control message: status: got 256, expected 0..255",
    ],
    [
      '{"type":"exit","status":0.5,"reason":"exit","lastWords":[]}',
      "control message: status: got 0.5, expected 0..255",
    ],
    [
      '{"type":"exit","status":0,"reason":"exit","lastWords":[1]}',
      "control message: lastWords[0]: got 1, expected a string",
    ],
    [`"${"x".repeat(100)}"`, `control message: got "${"x".repeat(59)}…, expected an object`],
  ])("%j", (line, message) => {
    const { decoder } = enclaveDecoder();
    expect(refusal(() => decoder.push(utf8(`${line}\n`)))).toBe(`E_CONTROL: ${message}`);
  });

  test("bytes that are not UTF-8", () => {
    const { decoder } = enclaveDecoder();
    expect(refusal(() => decoder.push(Uint8Array.of(0x22, 0xff, 0x22, 0x0a)))).toBe(
      "E_CONTROL: control message: got bytes that are not UTF-8, expected JSON in UTF-8",
    );
  });

  test("what came before is handed on, and nothing after", () => {
    const { decoder, messages } = enclaveDecoder();
    const good = encodeMessage(enclaveMessages[0] as EnclaveMessage);
    const failure = refusal(() => decoder.push(concat([good, utf8("bad\n"), good])));
    expect(failure).toMatch(/^E_CONTROL: control message: got "bad"/);
    expect(refusal(() => decoder.push(good))).toBe(failure);
    expect(messages).toEqual([enclaveMessages[0]]);
  });

  test("a line of exactly the limit passes, a longer one ends the channel before its newline", () => {
    const line = (length: number) => utf8(`{"type":"bye","x":"${"x".repeat(length - 22)}"}\n`);
    expect(line(CONTROL_LINE_MAX)).toHaveLength(CONTROL_LINE_MAX);
    expect(decodeParent(line(CONTROL_LINE_MAX))).toEqual([{ type: "bye" }]);
    const tooLong = "E_CONTROL: control message: got a longer line, expected at most 65536 bytes";
    expect(refusal(() => decodeParent(line(CONTROL_LINE_MAX + 1)))).toBe(tooLong);
    const decoder = new MessageDecoder(readParentMessage, () => {});
    decoder.push(new Uint8Array(CONTROL_LINE_MAX - 1).fill(0x20));
    expect(refusal(() => decoder.push(utf8(" ")))).toBe(tooLong);
  });

  test("brackets as deep as a line is long", () => {
    const deep = "[".repeat(32_000) + "]".repeat(32_000);
    expect(refusal(() => decodeParent(utf8(`${deep}\n`)))).toBe(
      "E_CONTROL: control message: got an array of 1, expected an object",
    );
    expect(decodeParent(utf8(`{"type":"bye","x":${deep}}\n`))).toEqual([{ type: "bye" }]);
  });

  test("random bytes end in E_CONTROL or are ignored", () => {
    let refused = 0;
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 30 }),
      fc.constantFrom(...parentMessages).map(encodeMessage),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
        const outcome = refusal(() => decodeParent(concat(pieces)));
        expect(outcome).toMatch(/^E_CONTROL: |^nothing thrown$/);
        if (outcome !== "nothing thrown") refused++;
      }),
      { numRuns: 1000 },
    );
    expect(refused).toBeGreaterThan(50);
  });
});

describe("splitLogText", () => {
  test("cuts between characters into pieces that fit, and loses nothing", () => {
    const text = fc
      .array(fc.tuple(fc.string({ unit: "binary", minLength: 1, maxLength: 4 }), fc.nat({ max: 6000 })), {
        maxLength: 6,
      })
      .map((parts) => parts.map(([unit, count]) => unit.repeat(count)).join(""));
    let cut = 0;
    fc.assert(
      fc.property(text, (text) => {
        const pieces = splitLogText(text);
        if (pieces.length > 1) cut++;
        expect(pieces.join("") === text).toBe(true);
        for (const piece of pieces) {
          expect(utf8(JSON.stringify(piece)).length - 2).toBeLessThanOrEqual(LOG_TEXT_MAX);
          encodeMessage({ type: "log", time: Number.MAX_SAFE_INTEGER, source: "stdout", text: piece });
        }
      }),
    );
    expect(cut).toBeGreaterThan(10);
  });

  test.each(['"', "\\", "\n", "\x01", "\ud800", "é", "水"])("counts %j as JSON writes it", (character) => {
    for (const piece of splitLogText(character.repeat(20_000))) {
      expect(utf8(JSON.stringify(piece)).length - 2).toBeLessThanOrEqual(LOG_TEXT_MAX);
    }
  });

  test("fills pieces to the limit", () => {
    expect(splitLogText("x".repeat(LOG_TEXT_MAX))).toHaveLength(1);
    expect(splitLogText("x".repeat(LOG_TEXT_MAX + 1)).map(({ length }) => length)).toEqual([LOG_TEXT_MAX, 1]);
    expect(splitLogText("\0".repeat(LOG_TEXT_MAX)).map(({ length }) => length)).toContain(2730);
    expect(splitLogText("")).toEqual([""]);
    expect(splitLogText("😀".repeat(5000)).every((piece) => piece.isWellFormed())).toBe(true);
  });
});

describe("encodeMessage", () => {
  test("an exit report always fits: old and long last words go first", () => {
    for (const word of ["x".repeat(20_000), "\0".repeat(70_000), "é", "\ud800"]) {
      const lastWords = [...Array<string>(20_000).fill(word), "the end"];
      const { decoder, messages } = enclaveDecoder();
      const line = encodeMessage({ type: "exit", status: 1, reason: "rejection", lastWords });
      expect(line.length).toBeLessThanOrEqual(CONTROL_LINE_MAX);
      decoder.push(line);
      const [message] = messages;
      const kept = message?.type === "exit" ? message.lastWords : [];
      expect(kept.at(-1)).toBe("the end");
      expect(kept.length).toBeGreaterThan(2);
    }
  });

  test("anything else that is too long is refused", () => {
    expect(
      refusal(() => encodeMessage({ type: "hello", protocol: 1, node: "", name: "x".repeat(70_000) })),
    ).toBe("E_CONTROL: hello message: got 70050 bytes, expected at most 65536");
  });
});
