import fc from "fast-check";
import { expect, test } from "vitest";
import { jsonOfLine, LOG_LEVELS, levelOfJson, levelOfSource } from "../../format/log.ts";

test.each([
  [{ level: "warn" }, "warn"],
  [{ level: "ERROR" }, "error"],
  [{ level: "warning" }, "warn"],
  [{ level: 10 }, "trace"],
  [{ level: 20 }, "debug"],
  [{ level: 30 }, "info"],
  [{ level: 35 }, "info"],
  [{ level: 40 }, "warn"],
  [{ level: 50 }, "error"],
  [{ level: 60 }, "fatal"],
  [{ level: 1e9 }, "fatal"],
  [{ level: -5 }, "trace"],
  [{ severity: "CRITICAL" }, "fatal"],
  [{ severity: "NOTICE" }, "info"],
  [{ level: "own", severity: "ERROR" }, "error"],
  [{ level: "own" }, undefined],
  [{ level: "constructor" }, undefined],
  [{ level: null }, undefined],
  [{ msg: "x" }, undefined],
])("%j is of level %s", (json, level) => expect(levelOfJson(json)).toBe(level));

test("a source's level", () => {
  expect([levelOfSource("stdout"), levelOfSource("stderr"), levelOfSource("init")]).toEqual([
    "info",
    "error",
    "info",
  ]);
});

test.each(["", "text", "[1]", '"x"', "{", '{"a":1} tail', "null"])("%j is no object", (line) => {
  expect(jsonOfLine(line)).toBeUndefined();
});

test("any object is one, and any number has a level", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      const json = JSON.stringify(value);
      expect(JSON.stringify(jsonOfLine(json))).toBe(json);
    }),
  );
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (level) => {
      expect(LOG_LEVELS).toContain(levelOfJson({ level }));
    }),
  );
});
