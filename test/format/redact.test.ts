import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isObject, type Json } from "../../format/json.ts";
import { isRedactRule, REDACTED, Redactor } from "../../format/redact.ts";

const line = (rules: readonly string[], text: string) => new Redactor(rules).line(text);

describe("names", () => {
  test.each([
    ["a field", '{"password":"x","a":1}', '{"password":"[redacted]","a":1}'],
    ["any case of letters", '{"PassWord":"x"}', '{"PassWord":"[redacted]"}'],
    ["at any depth", '{"a":[{"b":{"password":"x"}}]}', '{"a":[{"b":{"password":"[redacted]"}}]}'],
    [
      "values of any kind",
      '{"password":{"old":1},"token":[2]}',
      '{"password":"[redacted]","token":"[redacted]"}',
    ],
    ["a name that is escaped", '{"p\\u0061ssword":"x"}', '{"password":"[redacted]"}'],
    ["a field given twice", '{"password":"x","password":"y"}', '{"password":"[redacted]"}'],
    ["one that a later field hides", '{"a":{"password":"x"},"a":1}', '{"a":1}'],
    ["a prototype", '{"__proto__":{"password":"x"}}', '{"__proto__":{"password":"[redacted]"}}'],
    ["a line with spaces around", '  {"password": "x"} ', '{"password":"[redacted]"}'],
  ])("%s", (_, text, expected) => expect(line(["Password", "TOKEN"], text)).toBe(expected));

  test.each([
    ["a longer name", '{"passwordHint":"x"}'],
    ["a value", '{"a":"password"}'],
    ["a line that is no object", '["password"]'],
    ["text", "password=x"],
    ["half an object", '{"password":"x"'],
    ["a line without them: its very bytes", '{ "n": 12345678901234567890, "e": 1e2 }'],
  ])("leave alone %s", (_, text) => {
    const read = (json: string) => (json.endsWith("}") ? JSON.parse(json) : json);
    expect(read(line(["password"], text))).toEqual(read(text));
    if (!text.includes("password")) expect(line(["password"], text)).toBe(text);
  });

  test("what is nested deeper than any logger nests is hidden as a whole", () => {
    const deep = `${'{"a":'.repeat(5_000)}{"password":"x"}${"}".repeat(5_000)}`;
    expect(line(["password"], deep)).not.toContain('"x"');
  });
});

describe("patterns", () => {
  test.each([
    ["text", ["/sk_\\w+/"], "key sk_a1, sk_b2!", "key [redacted], [redacted]!"],
    ["a class as people write it", ["/[\\w.+-]+@[\\w-]+/"], "to ann.b@example now", "to [redacted] now"],
    ["a character of two units", ["/^.$/"], "😀", "[redacted]"],
    ["either case", ["/KEY/i"], "key Key", "[redacted] [redacted]"],
    ["one case", ["/KEY/"], "key KEY", "key [redacted]"],
    ["a value of JSON", ["/sk_\\w+/"], '{"a":["sk_1"]}', '{"a":["[redacted]"]}'],
    [
      "a value from its start to its end",
      ["/^\\d+$/"],
      '{"a":"123","b":"1x"}',
      '{"a":"[redacted]","b":"1x"}',
    ],
    ["an escaped value", ["/é+/"], '{"a":"\\u00e9"}', '{"a":"[redacted]"}'],
    ["a number", ["/\\d{16}/"], '{"card":4111111111111111}', '{"card":"[redacted]"}'],
    ["a key", ["/\\w+@\\w+/"], '{"ann@example":1}', '{"[redacted]":1}'],
    ["a whole key", ["/^\\w+@\\w+$/"], '{"ann@example":1}', '{"[redacted]":1}'],
    ["across the syntax of JSON", ['/"a":1/'], '{"a":1}', "{[redacted]}"],
    ["nothing: hides nothing", ["/x*/"], "abc", "abc"],
  ])("%s", (_, rules, text, expected) => expect(line(rules, text)).toBe(expected));
});

test("without rules nothing changes", () => {
  expect(new Redactor([]).isActive).toBe(false);
  expect(line([], '{"password" : "sk_1"}')).toBe('{"password" : "sk_1"}');
});

test.each(["", "/", "//", "/(/", "/a/g", "\ud800"])("%j is no rule", (rule) => {
  expect(isRedactRule(rule)).toBe(false);
});

/** Fields of all objects inside a value. */
function fields(value: Json): [string, Json][] {
  if (Array.isArray(value)) return value.flatMap(fields);
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([key, field]) => [[key, field] as [string, Json], ...fields(field)]);
}

const key = fc.oneof(
  fc.constantFrom("password", "PASSWORD", "Token", "__proto__"),
  fc.string({ maxLength: 5 }),
);
const { object } = fc.letrec<{ object: object; value: unknown }>((tie) => ({
  object: fc.dictionary(key, tie("value"), { maxKeys: 5 }),
  value: fc.oneof(
    { depthSize: "small" },
    fc.string(),
    fc.constantFrom("my secret7 x", "secret12"),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3 }),
    tie("object"),
  ),
}));

test("of any object no field of a name and no match of a pattern is left, and nothing else is touched", () => {
  const redactor = new Redactor(["password", "token", "/secret\\d+/"]);
  fc.assert(
    fc.property(object, fc.nat({ max: 2 }), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent).replaceAll("\n", " ");
      const result = redactor.line(text);
      expect(result).not.toMatch(/secret\d/);
      const left = fields(JSON.parse(result));
      for (const [key, field] of left) {
        if (/^(password|token)$/i.test(key)) expect(field).toBe(REDACTED);
      }
      const isHidden = (json: string) => /"(password|token)"/i.test(json) || /secret\d/.test(json);
      if (!isHidden(text)) expect(JSON.parse(result)).toEqual(JSON.parse(text));
      // The same again: what was hidden stays what it is.
      expect(redactor.line(result)).toBe(result);
    }),
  );
});

test("any text: no match is left, and what lies between matches stays", () => {
  const redactor = new Redactor(["/[0-9]+/"]);
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.string({ unit: "grapheme" }), fc.constant("42"))), (pieces) => {
      const text = pieces.join(" ");
      expect(redactor.text(text).split(REDACTED)).toEqual(text.split(/[0-9]+/));
    }),
  );
});
