import { createHash } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  DEVELOPMENT_MARK,
  DEVELOPMENT_VALUE,
  type DevelopmentReport,
  encodeReplacement,
  encodeReport,
  type Replacement,
  ReplacementDecoder,
  ReportDecoder,
} from "../../format/development.ts";
import { CloisterError } from "../../format/errors.ts";
import { encodeFrame } from "../../format/frame.ts";
import { concat, toHex } from "../../format/struct.ts";
import { refusal, utf8 } from "./vectors.ts";

const replacement: Replacement = {
  generation: 3,
  files: [
    { path: "main.mjs", data: utf8("export default 1;"), executable: false },
    { path: "assets/tool", data: new Uint8Array(0), executable: true },
  ],
  removed: ["assets/old.png"],
};
const reports: DevelopmentReport[] = [
  { type: "serving", generation: 3, ports: [8080, 4294967294] },
  { type: "ended", generation: 4, status: 1, reason: "load", replaced: true },
];

const decode = (bytes: Uint8Array) => [...new ReplacementDecoder().push(bytes)];
const head = (value: unknown) => encodeFrame(utf8(JSON.stringify(value)));

test("the mark is what a register of zeros becomes", () => {
  const hash = createHash("sha384").update(new Uint8Array(48)).update(DEVELOPMENT_MARK);
  expect(hash.digest("hex")).toBe(DEVELOPMENT_VALUE);
});

test("a replacement is a frame of JSON, then a frame a file", () => {
  const text =
    '{"generation":3,"files":[{"path":"main.mjs","executable":false},{"path":"assets/tool","executable":true}],"removed":["assets/old.png"]}';
  const bytes = concat([
    encodeFrame(utf8(text)),
    encodeFrame(utf8("export default 1;")),
    encodeFrame(utf8("")),
  ]);
  expect(toHex(encodeReplacement(replacement))).toBe(toHex(bytes));
});

test("replacements and reports come out as they went in, wherever the stream is cut", () => {
  const nothing: Replacement = { generation: 4, files: [], removed: [] };
  const stream = concat([replacement, nothing, replacement].map(encodeReplacement));
  const answers = concat(reports.map(encodeReport));
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length), { maxLength: 20 }), (cuts) => {
      const pieces = (bytes: Uint8Array) => {
        const ends = [...cuts.filter((cut) => cut <= bytes.length).sort((a, b) => a - b), bytes.length];
        return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
      };
      const decoder = new ReplacementDecoder();
      expect(pieces(stream).flatMap((piece) => [...decoder.push(piece)])).toEqual([
        replacement,
        nothing,
        replacement,
      ]);
      const answered = new ReportDecoder();
      expect(pieces(answers).flatMap((piece) => [...answered.push(piece)])).toEqual(reports);
    }),
  );
});

const good = { generation: 1, files: [], removed: [] };
test.each([
  ["no JSON", encodeFrame(utf8("{")), "E_DEVELOPMENT: replacement: got "],
  ["no files", head({ ...good, files: undefined }), "replacement: files: got nothing, expected an array"],
  ["a path that leaves /app", head({ ...good, removed: ["../init"] }), "expected a path below /app"],
  ["an absolute path", head({ ...good, removed: ["/init"] }), "expected a path below /app"],
  ["an empty path", head({ ...good, removed: [""] }), "expected a path below /app"],
  ["NUL in a path", head({ ...good, removed: ["a\0b"] }), "expected a path below /app"],
  ["a negative generation", head({ ...good, generation: -1 }), "generation: got -1"],
  ["a file without its mode", head({ ...good, files: [{ path: "a" }] }), "executable: got nothing"],
  ["a file that says it is endless", Uint8Array.of(0xff, 0xff, 0xff, 0xff), "got 4294967295 bytes"],
  [
    "more files than any app",
    head({ ...good, files: Array.from({ length: 65_537 }, () => 0) }),
    "got 65537 files",
  ],
  ["a head that is no head", encodeFrame(new Uint8Array(4 * 1024 * 1024 + 1)), "a head of 4194305 bytes"],
])("refuses %s", (_, bytes, message) => {
  expect(refusal(() => decode(bytes))).toContain(message);
});

test("refuses files that are more together than any bundle", () => {
  const names = ["a", "b"].map((path) => ({ path, executable: false }));
  const decoder = new ReplacementDecoder();
  const push = (bytes: Uint8Array) => [...decoder.push(bytes)];
  push(head({ ...good, files: names }));
  push(Uint8Array.of(0x10, 0, 0, 0));
  const piece = new Uint8Array(16 * 1024 * 1024);
  for (let count = 0; count < 16; count++) expect(push(piece)).toEqual([]);
  expect(refusal(() => push(encodeFrame(Uint8Array.of(0))))).toContain("got files of 268435457 bytes");
});

test("refuses reports that are none", () => {
  const decodeReports = (value: unknown) => [...new ReportDecoder().push(head(value))];
  expect(refusal(() => decodeReports({ ...reports[0], type: "over" }))).toContain("serving | ended");
  expect(refusal(() => decodeReports({ ...reports[0], ports: [0] }))).toContain("ports[0]: got 0");
  expect(refusal(() => decodeReports({ ...reports[1], status: 256 }))).toContain("status: got 256");
  const shown = { ...reports[1], reason: "\u001b[2J" };
  expect(refusal(() => decodeReports(shown))).toContain('reason: got "\\u001b[2J", expected return | ');
  const long = Uint8Array.of(0, 1, 0, 1);
  expect(refusal(() => [...new ReportDecoder().push(long)])).toContain(
    "got 65537 bytes, expected at most 65536",
  );
});

test.each([
  ["replacement", encodeReplacement(replacement), decode],
  ["report", concat(reports.map(encodeReport)), (bytes: Uint8Array) => [...new ReportDecoder().push(bytes)]],
])("whatever the bytes of a %s, a result or a refusal", (_, stream, read) => {
  let refused = 0;
  fc.assert(
    fc.property(
      fc.nat(stream.length - 1),
      fc.integer({ min: 1, max: 255 }),
      fc.nat(stream.length),
      (at, bits, end) => {
        const changed = stream.slice(0, end);
        if (at < end) changed[at] = (changed[at] ?? 0) ^ bits;
        try {
          read(changed);
        } catch (error) {
          expect(error).toBeInstanceOf(CloisterError);
          refused++;
        }
      },
    ),
    { numRuns: 2000 },
  );
  expect(refused).toBeGreaterThan(100);
});
